using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Filters;

// Every request: counted while it runs, held up while there is a pause.
public sealed partial class PauseFilter
{
    /// <inheritdoc/>
    public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        if (next.Info.CanFlush || next.Info.CanFua == Support.Emulate)
        {
            lock (_lock)
            {
                // Once for each context of this layer: several may have the same one below.
                _open.Add(next);
            }
        }
        return default;
    }

    /// <inheritdoc/>
    public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            _open.Remove(next);
        }
        return default;
    }

    /// <inheritdoc/>
    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => Run(LayerCall.Read(buffer, offset), next, cancellationToken);

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => Run(LayerCall.Write(data, offset, flags), next, cancellationToken);

    /// <inheritdoc/>
    public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken)
        => Run(LayerCall.Flush(), next, cancellationToken);

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Run(LayerCall.Trim(offset, length, flags), next, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Run(LayerCall.Zero(offset, length, flags), next, cancellationToken);

    /// <inheritdoc/>
    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => Run(LayerCall.Cache(offset, length), next, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
        => Run(LayerCall.Extents(offset, length, flags, extents), next, cancellationToken);

    private ValueTask Run(in LayerCall call, NextContext next, CancellationToken cancellationToken)
    {
        if (!TryEnter())
        {
            return RunLaterAsync(call, next, cancellationToken);
        }
        ValueTask pending;
        try
        {
            pending = call.Invoke(PassOn.Instance, next, cancellationToken);
        }
        catch
        {
            Exit();
            throw;
        }
        if (!pending.IsCompletedSuccessfully)
        {
            return ExitWhenDoneAsync(pending);
        }
        pending.GetAwaiter().GetResult();
        Exit();
        return default;
    }

    private async ValueTask RunLaterAsync(LayerCall call, NextContext next, CancellationToken cancellationToken)
    {
        await EnterAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            await call.Invoke(PassOn.Instance, next, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            Exit();
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ExitWhenDoneAsync(ValueTask pending)
    {
        try
        {
            await pending.ConfigureAwait(false);
        }
        finally
        {
            Exit();
        }
    }

    /// <summary>A handle that overrides nothing, so that it passes every call on.</summary>
    private sealed class PassOn : INbdFilterHandle
    {
        public static PassOn Instance { get; } = new();
    }

    bool INbdFilterHandle.KeepsNext => true;
}
