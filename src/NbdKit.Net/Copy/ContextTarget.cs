using System.Runtime.CompilerServices;

namespace NbdKit.Copy;

/// <summary>An opened disk as destination.</summary>
internal sealed class ContextTarget : CopyTarget
{
    /// <summary>After so many refusals in a row the destination is not asked for fast zeroes any more.</summary>
    private const int Patience = 4;

    private readonly IReadOnlyList<NextContext> _contexts;
    private readonly NbdExportInfo _info;
    private readonly CopyCounters _counters;
    private readonly int _slice;
    private readonly bool _skipsZeroes;
    private readonly RequestFlags _zeroFlags;
    private int _refusals;

    public ContextTarget(
        IReadOnlyList<NextContext> contexts, CopyGeometry geometry, NbdCopyOptions options, CopyCounters counters)
    {
        _contexts = contexts;
        _info = contexts[0].Info;
        _counters = counters;
        _slice = geometry.DestinationSlice;
        _skipsZeroes = options.DestinationIsZero;
        _zeroFlags = options.Allocated ? RequestFlags.None : RequestFlags.MayTrim;
    }

    public override bool WantsZeroes => _skipsZeroes || _info.CanZero == Support.Native;

    // What is zeroed by writing is better spread over the workers.
    public override long ZeroPiece => _skipsZeroes ? long.MaxValue : _info.CanZero == Support.Native ? 1L << 30 : 4 << 20;

    public override ValueTask WriteAsync(
        int lane, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        CheckEnd(offset, data.Length);
        _counters.AddWritten(data.Length);
        NextContext context = _contexts[lane % _contexts.Count];
        return data.Length <= _slice && Tail(offset + data.Length) == 0
            ? context.WriteAsync(data, offset, RequestFlags.None, cancellationToken)
            : WriteSlicesAsync(context, data, offset, cancellationToken);
    }

    public override ValueTask ZeroAsync(int lane, long offset, long length, CancellationToken cancellationToken)
    {
        CheckEnd(offset, length);
        return _skipsZeroes ? default : ZeroRangeAsync(_contexts[lane % _contexts.Count], offset, length, cancellationToken);
    }

    public override ValueTask ZeroAsync(
        int lane, ReadOnlyMemory<byte> zeroes, long offset, CancellationToken cancellationToken)
    {
        CheckEnd(offset, zeroes.Length);
        return _skipsZeroes ? default : ZeroDataAsync(lane, zeroes, offset, cancellationToken);
    }

    public override ValueTask FlushAsync(CancellationToken cancellationToken)
        // Several contexts are only used if a flush of one covers them all.
        => CanFlush ? _contexts[0].FlushAsync(cancellationToken) : default;

    /// <summary>Whether there is a way to know that data is on stable storage.</summary>
    public bool CanFlush => _info.CanFlush || _info.CanFua == Support.Emulate;

    private void CheckEnd(long offset, long length)
    {
        if (length > _info.Size - offset)
        {
            throw new NbdException(
                NbdError.NoSpace, $"the destination has {_info.Size} bytes, which are fewer than those of the source");
        }
    }

    /// <summary>How much of the last block is covered if a range ends there, and not with the disk.</summary>
    private int Tail(long end)
        => end == _info.Size || _info.BlockSize.Minimum <= 1 ? 0 : (int)(end & (_info.BlockSize.Minimum - 1));

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask WriteSlicesAsync(
        NextContext context, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        int tail = Tail(offset + data.Length);
        ReadOnlyMemory<byte> rest = data[^tail..];
        data = data[..^tail];
        while (!data.IsEmpty)
        {
            int count = Math.Min(data.Length, _slice);
            await context.WriteAsync(data[..count], offset, RequestFlags.None, cancellationToken).ConfigureAwait(false);
            data = data[count..];
            offset += count;
        }
        if (tail != 0)
        {
            await WriteTailAsync(context, rest, offset, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The begin of the block that the copy ends in; what follows there stays as it is.</summary>
    private async ValueTask WriteTailAsync(
        NextContext context, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
    {
        byte[] block = new byte[Math.Min(_info.BlockSize.Minimum, _info.Size - offset)];
        await context.ReadAsync(block, offset, cancellationToken).ConfigureAwait(false);
        data.CopyTo(block);
        await context.WriteAsync(block, offset, RequestFlags.None, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask ZeroRangeAsync(
        NextContext context, long offset, long length, CancellationToken cancellationToken)
    {
        _counters.AddZeroed(length);
        int tail = Tail(offset + length);
        long whole = length - tail;
        if (whole > 0 && _info.CanZero == Support.None)
        {
            await WriteZeroesAsync(context, offset, whole, cancellationToken).ConfigureAwait(false);
        }
        else if (whole > 0 && !await TryFastAsync(context, offset, whole, cancellationToken).ConfigureAwait(false))
        {
            await context.ZeroAsync(offset, whole, _zeroFlags, cancellationToken).ConfigureAwait(false);
        }
        if (tail != 0)
        {
            await WriteTailAsync(context, new byte[tail], offset + whole, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>For a disk that offers no zeroes at all, not even by having them written.</summary>
    private async ValueTask WriteZeroesAsync(
        NextContext context, long offset, long length, CancellationToken cancellationToken)
    {
        byte[] zeroes = new byte[Math.Min(length, Math.Min(_slice, 1 << 20))];
        long end = offset + length;
        while (offset < end)
        {
            int count = (int)Math.Min(zeroes.Length, end - offset);
            await context.WriteAsync(zeroes.AsMemory(0, count), offset, RequestFlags.None, cancellationToken)
                .ConfigureAwait(false);
            offset += count;
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ZeroDataAsync(
        int lane, ReadOnlyMemory<byte> zeroes, long offset, CancellationToken cancellationToken)
    {
        NextContext context = _contexts[lane % _contexts.Count];
        bool isOffered = _info.CanZero == Support.Native && Tail(offset + zeroes.Length) == 0;
        if (isOffered && await TryFastAsync(context, offset, zeroes.Length, cancellationToken).ConfigureAwait(false))
        {
            _counters.AddZeroed(zeroes.Length);
        }
        else if (isOffered && !_info.CanFastZero)
        {
            _counters.AddZeroed(zeroes.Length);
            await context.ZeroAsync(offset, zeroes.Length, _zeroFlags, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            await WriteAsync(lane, zeroes, offset, cancellationToken).ConfigureAwait(false);
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<bool> TryFastAsync(
        NextContext context, long offset, long length, CancellationToken cancellationToken)
    {
        if (!_info.CanFastZero || Volatile.Read(ref _refusals) >= Patience)
        {
            return false;
        }
        try
        {
            await context.ZeroAsync(offset, length, _zeroFlags | RequestFlags.FastZero, cancellationToken).ConfigureAwait(false);
            Volatile.Write(ref _refusals, 0);
            return true;
        }
        catch (Exception e) when (e is NotSupportedException or NbdException { Error: NbdError.NotSupported })
        {
            Interlocked.Increment(ref _refusals);
            return false;
        }
    }
}
