using System.Buffers;
using NbdKit.Layers;

namespace NbdKit;

// What a layer only promised is done here with its other operations, once for all layers: FUA by a flush, zero by writing
// zeroes, cache by reading. (nbdkit-plugin(3): can_fua, can_zero, can_cache.) Unlike nbdkit, a layer that says Emulate for
// FUA never sees the flag, filters included: there is no emulation that an author can forget.
public sealed partial class NextContext
{
    private const int ChunkBytes = 1 << 20;

    // Chunks that are done in a row on the caller's thread. A layer that never waits would keep it for all that 32 bytes can ask for:
    // the client could not leave, nor the server stop.
    private const int ChunksInARow = 16;

    // Never written to.
    private static readonly byte[] Zeroes = new byte[ChunkBytes];

    private async ValueTask RunAndFlushAsync(LayerCall call, CancellationToken cancellationToken)
    {
        Hold();
        try
        {
            // A flush that succeeds must not hide the failure of the operation: this throws first.
            await Run(call, cancellationToken).ConfigureAwait(false);
            await Run(LayerCall.Flush(), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            Leave();
        }
    }

    private async ValueTask ZeroAndFlushAsync(
        long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        Hold();
        try
        {
            await ZeroOrWrite(offset, length, flags, cancellationToken).ConfigureAwait(false);
            await Run(LayerCall.Flush(), cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            Leave();
        }
    }

    private ValueTask ZeroOrWrite(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        if (_info!.CanZero == Support.Native)
        {
            return ZeroNativeAsync(offset, length, flags, cancellationToken);
        }
        if ((flags & RequestFlags.FastZero) != 0)
        {
            throw new NbdException(NbdError.NotSupported, $"zeroes are written by {Backend.Name}, which is not fast");
        }
        return ZeroByWritingAsync(offset, length, flags, cancellationToken);
    }

    private ValueTask ZeroNativeAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => CountsCalls
            ? ZeroNativeHeldAsync(offset, length, flags, cancellationToken)
            : ZeroNativeOrWrite(offset, length, flags, cancellationToken);

    private async ValueTask ZeroNativeHeldAsync(
        long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        Hold();
        try
        {
            await ZeroNativeOrWrite(offset, length, flags, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            Leave();
        }
    }

    private ValueTask ZeroNativeOrWrite(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        ValueTask native;
        try
        {
            native = Run(LayerCall.Zero(offset, length, flags), cancellationToken);
        }
        catch (Exception e) when (IsNotSupported(e) && (flags & RequestFlags.FastZero) == 0)
        {
            return ZeroByWritingAsync(offset, length, flags, cancellationToken);
        }
        return native.IsCompletedSuccessfully ? native : FallBackAsync(native, offset, length, flags, cancellationToken);
    }

    private async ValueTask FallBackAsync(
        ValueTask native, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        try
        {
            await native.ConfigureAwait(false);
        }
        catch (Exception e) when (IsNotSupported(e) && (flags & RequestFlags.FastZero) == 0)
        {
            // The layer declined; its content is unchanged.
            await ZeroByWritingAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
        }
    }

    private async ValueTask ZeroByWritingAsync(
        long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        RequestFlags fua = flags & RequestFlags.Fua;
        long chunk = ChunkLimit;
        long done = 0;
        Hold();
        try
        {
            while (length > 0)
            {
                await PauseAsync(done++, cancellationToken).ConfigureAwait(false);
                int count = (int)Math.Min(length, chunk);
                await Run(LayerCall.Write(Zeroes.AsMemory(0, count), offset, fua), cancellationToken).ConfigureAwait(false);
                offset += count;
                length -= count;
            }
        }
        finally
        {
            Leave();
        }
    }

    // Between two chunks: leaves the thread to others now and then, and ends if nobody waits any more.
    private static ValueTask PauseAsync(long done, CancellationToken cancellationToken)
    {
        cancellationToken.ThrowIfCancellationRequested();
        return done > 0 && done % ChunksInARow == 0 ? YieldAsync() : default;

        static async ValueTask YieldAsync() => await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
    }

    private async ValueTask CacheByReadingAsync(long offset, long length, CancellationToken cancellationToken)
    {
        int chunk = (int)Math.Min(length, ChunkLimit);
        Hold();
        long done = 0;
        byte[] sink = ArrayPool<byte>.Shared.Rent(chunk);
        try
        {
            while (length > 0)
            {
                await PauseAsync(done++, cancellationToken).ConfigureAwait(false);
                int count = (int)Math.Min(length, chunk);
                await Run(LayerCall.Read(sink.AsMemory(0, count), offset), cancellationToken).ConfigureAwait(false);
                offset += count;
                length -= count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(sink);
            Leave();
        }
    }

    private ValueTask CheckExtents(ValueTask answer, long offset, ExtentList extents)
    {
        if (!answer.IsCompletedSuccessfully)
        {
            return CheckExtentsAsync(answer, offset, extents);
        }
        answer.GetAwaiter().GetResult();
        RequireExtents(offset, extents);
        return default;
    }

    private async ValueTask CheckExtentsAsync(ValueTask answer, long offset, ExtentList extents)
    {
        await answer.ConfigureAwait(false);
        RequireExtents(offset, extents);
    }

    private void RequireExtents(long offset, ExtentList extents)
    {
        if (extents.Covered <= offset)
        {
            throw new NbdException(NbdError.InvalidArgument, $"{Backend.Name} reported no extent at {offset}");
        }
    }

    private long ChunkLimit
        => _info!.BlockSize.Maximum is > 0 and < ChunkBytes ? _info.BlockSize.Maximum : ChunkBytes;

    private static bool IsNotSupported(Exception e)
        => e is NotSupportedException or NbdException { Error: NbdError.NotSupported };
}
