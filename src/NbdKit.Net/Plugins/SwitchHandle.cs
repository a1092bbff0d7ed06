using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Plugins;

/// <summary>
/// One context of a <see cref="SwitchPlugin"/>: passes each request to the chain of the moment. Requests are counted, and
/// wait at the door while the chain is being replaced.
/// </summary>
internal sealed class SwitchHandle : IChainHandle
{
    private readonly SwitchPlugin _plugin;
    private InnerContext _inner;
    private NextContext _next;
    private int _calls;
    private TaskCompletionSource? _idle;
    private Task? _paused;
    private bool _mayBlock;

    public SwitchHandle(SwitchPlugin plugin, NbdOpenContext context, InnerContext inner)
    {
        _plugin = plugin;
        Context = context;
        Info = inner.Info;
        _inner = inner;
        _next = inner.Next;
        _next.CountsCalls = false;
    }

    public NbdOpenContext Context { get; }

    /// <summary>What the client was told. It holds for every chain that comes.</summary>
    public NbdExportInfo Info { get; }

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(Info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (!TryEnterAtOnce())
        {
            return RunLaterAsync(LayerCall.Read(buffer, offset), cancellationToken);
        }
        ValueTask pending;
        try
        {
            pending = _next.ReadAsync(buffer, offset, cancellationToken);
        }
        catch
        {
            Release();
            throw;
        }
        return ReleaseWhenDone(pending);
    }

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        if (!TryEnterAtOnce())
        {
            return RunLaterAsync(LayerCall.Write(data, offset, flags), cancellationToken);
        }
        ValueTask pending;
        try
        {
            pending = _next.WriteAsync(data, offset, flags, cancellationToken);
        }
        catch
        {
            Release();
            throw;
        }
        return ReleaseWhenDone(pending);
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken) => Run(LayerCall.Flush(), cancellationToken);

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Run(LayerCall.Trim(offset, length, flags), cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Run(LayerCall.Zero(offset, length, flags), cancellationToken);

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => Run(LayerCall.Cache(offset, length), cancellationToken);

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        => Run(LayerCall.Extents(offset, length, flags, extents), cancellationToken);

    public async ValueTask FinalizeAsync(CancellationToken quick)
    {
        await LeaveAsync().ConfigureAwait(false);
        await _inner.FinalizeAsync(quick).ConfigureAwait(false);
    }

    public async ValueTask CloseAsync()
    {
        await LeaveAsync().ConfigureAwait(false);
        await _inner.CloseAsync().ConfigureAwait(false);
    }

    /// <summary>Lets nothing in any more until <see cref="Resume"/>; then the task completes.</summary>
    public void Pause(Task resumed)
    {
        Volatile.Write(ref _paused, resumed);
        // Whoever enters now either sees this or is seen by who waits for the door to be quiet.
        Interlocked.MemoryBarrier();
    }

    public void Resume() => Volatile.Write(ref _paused, null);

    public async ValueTask WaitForIdleAsync(CancellationToken cancellationToken)
    {
        while (Volatile.Read(ref _calls) != 0)
        {
            TaskCompletionSource idle = Volatile.Read(ref _idle) ?? NewIdle();
            // The count is read again after the signal is in place: whoever leaves last either sees it or is seen.
            Interlocked.MemoryBarrier();
            if (Volatile.Read(ref _calls) == 0)
            {
                return;
            }
            await idle.Task.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    public void Hold() => Interlocked.Increment(ref _calls);

    public void Release()
    {
        if (Interlocked.Decrement(ref _calls) == 0 && Volatile.Read(ref _idle) is not null)
        {
            Interlocked.Exchange(ref _idle, null)?.TrySetResult();
        }
    }

    /// <summary>Flushes the chain of the moment while requests wait.</summary>
    public ValueTask FlushAsideAsync(CancellationToken cancellationToken)
        => _next.Info.CanWrite && (_next.Info.CanFlush || _next.Info.CanFua == Support.Emulate)
            ? _next.FlushAsync(cancellationToken)
            : default;

    /// <summary>Takes another chain; only while requests wait and none is in flight. Returns what served before.</summary>
    public InnerContext Attach(InnerContext inner)
    {
        InnerContext old = _inner;
        inner.Next.CountsCalls = false;
        _inner = inner;
        _mayBlock = inner.Info.IsBlocking && !Info.IsBlocking;
        Volatile.Write(ref _next, inner.Next);
        return old;
    }

    private async ValueTask LeaveAsync()
    {
        _plugin.Leave(this);
        // All that may still be there is the flush of a replacement.
        await WaitForIdleAsync(CancellationToken.None).ConfigureAwait(false);
    }

    private bool TryEnter()
    {
        Interlocked.Increment(ref _calls);
        if (Volatile.Read(ref _paused) is null)
        {
            return true;
        }
        Release();
        return false;
    }

    // A chain that may block goes another way, although the client's server was told that none does.
    private bool TryEnterAtOnce() => !_mayBlock && TryEnter();

    private ValueTask Run(in LayerCall call, CancellationToken cancellationToken)
    {
        if (!TryEnterAtOnce())
        {
            return RunLaterAsync(call, cancellationToken);
        }
        ValueTask pending;
        try
        {
            pending = call.Invoke(_next, cancellationToken);
        }
        catch
        {
            Release();
            throw;
        }
        return ReleaseWhenDone(pending);
    }

    private ValueTask ReleaseWhenDone(ValueTask pending)
    {
        if (!pending.IsCompletedSuccessfully)
        {
            return ReleaseWhenDoneAsync(pending);
        }
        pending.GetAwaiter().GetResult();
        Release();
        return default;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReleaseWhenDoneAsync(ValueTask pending)
    {
        try
        {
            await pending.ConfigureAwait(false);
        }
        finally
        {
            Release();
        }
    }

    private async ValueTask RunLaterAsync(LayerCall call, CancellationToken cancellationToken)
    {
        while (!TryEnter())
        {
            if (Volatile.Read(ref _paused) is { } paused)
            {
                await paused.WaitAsync(cancellationToken).ConfigureAwait(false);
            }
        }
        try
        {
            if (_mayBlock)
            {
                await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            }
            await call.Invoke(_next, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            Release();
        }
    }

    private TaskCompletionSource NewIdle()
    {
        var idle = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        return Interlocked.CompareExchange(ref _idle, idle, null) ?? idle;
    }
}
