namespace NbdKit.Tests.Testing;

/// <summary>Awaits with a deadline of real time, so that what hangs fails.</summary>
internal static class Awaiting
{
    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(10);

    public static Task Soon(this Task task) => task.WaitAsync(Deadline);

    public static Task<T> Soon<T>(this Task<T> task) => task.WaitAsync(Deadline);

    public static Task Soon(this ValueTask task) => task.AsTask().WaitAsync(Deadline);

    public static Task<T> Soon<T>(this ValueTask<T> task) => task.AsTask().WaitAsync(Deadline);
}
