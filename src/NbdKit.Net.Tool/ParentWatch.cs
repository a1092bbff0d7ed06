namespace NbdKit.Tool;

/// <summary>Stops this process in order when its parent ends.</summary>
internal static class ParentWatch
{
    private static readonly TimeSpan Interval = TimeSpan.FromSeconds(1);

    public static bool IsSupported => !OperatingSystem.IsWindows();

    /// <summary>
    /// Begins to watch. Call it on the main thread: Linux forgets the request when the thread that made it ends.
    /// </summary>
    /// <returns>What keeps the watch alive.</returns>
    /// <exception cref="CommandException">The parent has ended already, or cannot be watched here.</exception>
    public static IDisposable? Start()
    {
        if (!IsSupported)
        {
            throw new CommandException("--exit-with-parent is not supported on this system");
        }
        int parent = NativeMethods.ParentProcessId();
        if (OperatingSystem.IsLinux())
        {
            bool asked = NativeMethods.SignalOnParentDeath(NativeMethods.SignalTerminate);
            // A parent that ended before the request sends no signal.
            return NativeMethods.ParentProcessId() != parent
                ? throw new CommandException("the parent process has ended")
                : asked ? null : Poll(parent);
        }
        return Poll(parent);
    }

    private static Timer Poll(int parent) => new(
        _ =>
        {
            if (NativeMethods.ParentProcessId() != parent)
            {
                NativeMethods.SendSignal(Environment.ProcessId, NativeMethods.SignalTerminate);
            }
        },
        null, Interval, Interval);
}
