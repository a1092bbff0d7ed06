using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>One context of <see cref="ProtectFilter"/>.</summary>
internal sealed class ProtectHandle(ProtectFilter filter) : INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    private (long Start, long End)[] _ranges = [];

    public bool KeepsNext => true;

    public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        _ranges = filter.Resolve(next.Info.Size);
        return default;
    }

    public bool LeavesAlone(LayerOperation operation)
        => operation is not (LayerOperation.Write or LayerOperation.Zero or LayerOperation.Trim);

    public ValueTask ReadSparseAsync(
        NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => next.ReadSparseAsync(buffer, offset, extents, cancellationToken);

    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        int first = FirstTouched(offset, data.Length);
        return first < 0
            ? next.WriteAsync(data, offset, flags, cancellationToken)
            : CompareAndWriteAsync(next, data, offset, flags, first, cancellationToken);
    }

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        int first = FirstTouched(offset, length);
        if (first < 0)
        {
            return next.ZeroAsync(offset, length, flags, cancellationToken);
        }
        return (flags & RequestFlags.FastZero) != 0
            ? throw new NbdException(NbdError.NotSupported, "a zero that must be compared with protected bytes is not fast")
            : CompareAndZeroAsync(next, offset, length, flags, first, cancellationToken);
    }

    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        int first = FirstTouched(offset, length);
        return first < 0
            ? next.TrimAsync(offset, length, flags, cancellationToken)
            : TrimAroundAsync(next, offset, length, flags, first, cancellationToken);
    }

    public bool TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => !(forWrite && FirstTouched(offset, length) >= 0) && next.TryLend(offset, length, loan, forWrite);

    public void Prefetch(NextContext next, long offset) => next.Prefetch(offset);

    /// <summary>The index of the first protected range that a request touches, or -1.</summary>
    private int FirstTouched(long offset, long length)
    {
        int low = 0;
        int high = _ranges.Length;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_ranges[middle].End <= offset)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }
        return low < _ranges.Length && _ranges[low].Start < offset + length ? low : -1;
    }

    private async ValueTask CompareAndWriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        int first,
        CancellationToken cancellationToken)
    {
        for (int i = first; i < _ranges.Length && _ranges[i].Start < offset + data.Length; i++)
        {
            long from = Math.Max(_ranges[i].Start, offset);
            long to = Math.Min(_ranges[i].End, offset + data.Length);
            ReadOnlyMemory<byte> part = data[(int)(from - offset)..(int)(to - offset)];
            if (!await ContentCheck.HoldsAsync(next, part, from, cancellationToken).ConfigureAwait(false))
            {
                throw Refused("write", i);
            }
        }
        // As a whole, because what is not protected need not be aligned to blocks.
        await next.WriteAsync(data, offset, flags, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask CompareAndZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, int first, CancellationToken cancellationToken)
    {
        await RequireZeroAsync(next, "zero", offset, length, first, cancellationToken).ConfigureAwait(false);
        await next.ZeroAsync(offset, length, flags, cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask TrimAroundAsync(
        NextContext next, long offset, long length, RequestFlags flags, int first, CancellationToken cancellationToken)
    {
        await RequireZeroAsync(next, "trim", offset, length, first, cancellationToken).ConfigureAwait(false);
        long end = offset + length;
        long at = offset;
        for (int i = first; at < end; i++)
        {
            bool isTouched = i < _ranges.Length && _ranges[i].Start < end;
            long from = RoundUp(next, at);
            long to = isTouched ? RoundDown(next, _ranges[i].Start) : end;
            if (from < to)
            {
                await next.TrimAsync(from, to - from, flags, cancellationToken).ConfigureAwait(false);
            }
            at = isTouched ? _ranges[i].End : end;
        }
    }

    private async ValueTask RequireZeroAsync(
        NextContext next, string operation, long offset, long length, int first, CancellationToken cancellationToken)
    {
        for (int i = first; i < _ranges.Length && _ranges[i].Start < offset + length; i++)
        {
            long from = Math.Max(_ranges[i].Start, offset);
            long to = Math.Min(_ranges[i].End, offset + length);
            if (!await ContentCheck.IsZeroAsync(next, from, to - from, cancellationToken).ConfigureAwait(false))
            {
                throw Refused(operation, i);
            }
        }
    }

    private NbdException Refused(string operation, int range) => new(
        NbdError.PermissionDenied,
        $"the {operation} would change the protected bytes {_ranges[range].Start}-{_ranges[range].End - 1}");

    private static long RoundDown(NextContext next, long offset) => offset & -Math.Max(1, next.Info.BlockSize.Minimum);

    private static long RoundUp(NextContext next, long offset)
    {
        long down = RoundDown(next, offset);
        long minimum = Math.Max(1, next.Info.BlockSize.Minimum);
        return down == offset ? offset : down + Math.Min(minimum, next.Info.Size - down);
    }
}
