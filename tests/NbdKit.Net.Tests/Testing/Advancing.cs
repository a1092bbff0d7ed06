using System.Diagnostics;

namespace NbdKit.Tests.Testing;

/// <summary>Lets fake time pass while code under test goes from one wait to the next.</summary>
internal static class Advancing
{
    private static readonly TimeSpan Step = TimeSpan.FromMilliseconds(100);
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(10);

    /// <summary>Advances in small steps until a task has ended; fails if that takes long in real time.</summary>
    public static async Task AdvanceUntilAsync(this FakeTimeProvider time, Task task)
    {
        var real = Stopwatch.StartNew();
        while (!task.IsCompleted)
        {
            Assert.That(real.Elapsed, Is.LessThan(Deadline), "it does not end, however much time passes");
            time.Advance(Step);
            for (int i = 0; i < 20 && !task.IsCompleted; i++)
            {
                await Task.Yield();
            }
        }
    }
}
