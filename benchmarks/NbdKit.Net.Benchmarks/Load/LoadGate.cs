namespace NbdKit.Benchmarks.Load;

/// <summary>Lets all connections begin at once, and tells them when to end.</summary>
internal sealed class LoadGate
{
    private volatile bool _stopped;

    public ManualResetEventSlim Opened { get; } = new();

    public bool IsStopped => _stopped;

    public void Stop() => _stopped = true;
}
