namespace NbdKit.Plugins;

/// <summary>One member of a <see cref="MirrorPlugin"/>, from when it was added until it is removed or recovered.</summary>
/// <remarks>All members may be used from any thread at any time.</remarks>
public sealed class MirrorMember
{
    private readonly TaskCompletionSource _inSync = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly CancellationTokenSource _leaving = new();
    private volatile MirrorMemberState _state;
    private long _resynced;

    internal MirrorMember(NbdBackend chain, MirrorMemberState state)
    {
        Chain = chain;
        _state = state;
        if (state == MirrorMemberState.InSync)
        {
            _inSync.SetResult();
        }
    }

    /// <summary>The chain that serves this member.</summary>
    public NbdBackend Chain { get; }

    /// <summary>What the member is good for now.</summary>
    public MirrorMemberState State => _state;

    /// <summary>Why the member failed, or null.</summary>
    public Exception? Failure { get; private set; }

    /// <summary>The number of bytes from the start of the disk that the resync has done; up to the size of the mirror.</summary>
    public long Resynced
    {
        get => Interlocked.Read(ref _resynced);
        internal set => Interlocked.Exchange(ref _resynced, value);
    }

    /// <summary>
    /// Completes when the member is in sync. Fails with <see cref="Failure"/> if it fails before that; is cancelled if it is
    /// removed, or the mirror stops.
    /// </summary>
    public Task InSync => _inSync.Task;

    /// <summary>Whether it takes changes.</summary>
    internal bool IsActive => _state is MirrorMemberState.InSync or MirrorMemberState.Resyncing;

    /// <summary>Fires when it is removed.</summary>
    internal CancellationToken Leaving => _leaving.Token;

    /// <summary>The work that brings it in sync.</summary>
    internal Task Resync { get; set; } = Task.CompletedTask;

    // The changes of state are made under the lock of the mirror.
    internal void BecomeInSync()
    {
        _state = MirrorMemberState.InSync;
        _inSync.TrySetResult();
    }

    internal void Fail(Exception failure)
    {
        Failure = failure;
        _state = MirrorMemberState.Failed;
        if (_inSync.TrySetException(failure))
        {
            // Nobody has to wait for it.
            _ = _inSync.Task.Exception;
        }
    }

    internal void Remove()
    {
        _state = MirrorMemberState.Removed;
        _inSync.TrySetCanceled();
    }

    /// <summary>Ends the resync. Not under the lock, since what waits may go on right here.</summary>
    internal Task StopResyncAsync()
    {
        _leaving.Cancel();
        return Resync;
    }

    internal void GiveUp() => _inSync.TrySetCanceled();
}
