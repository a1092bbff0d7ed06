namespace NbdKit.Tests.Testing;

/// <summary>Lets fake time pass while code under test goes from one wait to the next.</summary>
internal static class Advancing
{
    private static readonly TimeSpan Step = TimeSpan.FromMilliseconds(100);

    /// <summary>
    /// Advances in steps until a task has ended, or so much time has passed. Between two steps the code under test gets real
    /// time to reach its next timer, as long as it has none pending beyond those it had.
    /// </summary>
    public static async Task AdvanceUntilAsync(this FakeTimeProvider time, Task task, TimeSpan atMost)
    {
        for (TimeSpan passed = TimeSpan.Zero; passed < atMost && !task.IsCompleted; passed += Step)
        {
            time.Advance(Step);
            for (int i = 0; i < 20 && !task.IsCompleted; i++)
            {
                await Task.Yield();
            }
        }
    }
}
