namespace NbdKit.Tests.Testing;

/// <summary>
/// A plugin that does everything wrong that one can. Its default export misbehaves by region, see <see cref="FaultyRegion"/>;
/// each of the others has one fault of its own.
/// </summary>
internal sealed class FaultyPlugin : INbdPlugin
{
    public const int RegionSize = 1 << 20;

    private readonly TaskCompletionSource _released = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly TaskCompletionSource _allClosed = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly byte[] _data = new byte[(int)FaultyRegion.Missing * RegionSize];
    private readonly SemaphoreSlim _hanging = new(0);
    private int _open;

    public string Name => "faulty";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Completes when, after the last open, every export was closed.</summary>
    public Task AllClosed => _allClosed.Task;

    /// <summary>Waits until one more request hangs.</summary>
    public async Task UntilHangingAsync()
        => Assert.That(await _hanging.WaitAsync(Peer.Deadline), Is.True, "no request came that hangs");

    /// <summary>Lets all requests go that hang.</summary>
    public void Release() => _released.TrySetResult();

    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        switch (context.ExportName)
        {
            case "open throws":
                throw new InvalidOperationException("Opening went wrong.");
            case "open hangs":
                await Task.Delay(Timeout.Infinite, cancellationToken);
                break;
        }
        Interlocked.Increment(ref _open);
        return new FaultyHandle(this, context.ExportName);
    }

    internal void Closed()
    {
        if (Interlocked.Decrement(ref _open) == 0)
        {
            _allClosed.TrySetResult();
        }
    }

    /// <summary>The memory behind a range, once what its region is good for has happened.</summary>
    internal ValueTask<Memory<byte>> RangeAsync(long offset, long length, CancellationToken cancellationToken)
    {
        var region = (FaultyRegion)(offset / RegionSize);
        switch (region)
        {
            case FaultyRegion.NoSpace:
                throw new NbdException(NbdError.NoSpace, "the disk is full");
            case FaultyRegion.ThrowsAtOnce:
                throw new InvalidOperationException("This should never happen.");
            case FaultyRegion.CancelsItself:
                throw new OperationCanceledException("Not today.");
            case FaultyRegion.NoMemory:
                throw new OutOfMemoryException("There is no memory left.");
            case FaultyRegion.UnknownError:
                throw new NbdException((NbdError)12345, "a number out of the blue");
            case FaultyRegion.NotSupported:
                throw new NbdException(NbdError.NotSupported, "not supported");
            case FaultyRegion.ThrowsLater or FaultyRegion.Late or FaultyRegion.Hangs or FaultyRegion.HangsForGood:
                return LaterAsync(region, offset, length, cancellationToken);
            case FaultyRegion.Releases:
                Release();
                break;
        }
        // Beyond the end of the array this throws, as it would in any plugin that lies about its size.
        return new(_data.AsMemory((int)offset, (int)length));
    }

    private async ValueTask<Memory<byte>> LaterAsync(
        FaultyRegion region, long offset, long length, CancellationToken cancellationToken)
    {
        await Task.Yield();
        switch (region)
        {
            case FaultyRegion.ThrowsLater:
                throw new InvalidOperationException("This should never happen later.");
            case FaultyRegion.Hangs:
                _hanging.Release();
                await _released.Task.WaitAsync(cancellationToken);
                break;
            case FaultyRegion.HangsForGood:
                _hanging.Release();
                await _released.Task;
                break;
        }
        return _data.AsMemory((int)offset, (int)length);
    }
}
