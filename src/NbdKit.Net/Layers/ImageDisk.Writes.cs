using System.Buffers;

namespace NbdKit.Layers;

// Changes. What begins or ends inside a unit of the layer below keeps the rest of that unit, whoever writes it meanwhile.
internal sealed partial class ImageDisk
{
    private static readonly byte[] Zeroes = new byte[64 << 10];

    private readonly RangeLock? _units;

    /// <summary>Writes data; the caller has checked that the range is inside the disk.</summary>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => _units is null && data.Length <= _largest
            ? _next.WriteAsync(data, offset, flags, cancellationToken)
            : WriteUnitsAsync(data, offset, flags, cancellationToken);

    /// <summary>Makes a range read as zeroes.</summary>
    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        if (_units is null)
        {
            return _next.ZeroAsync(offset, length, flags, cancellationToken);
        }
        if ((flags & RequestFlags.FastZero) != 0 && !IsAligned(offset, length))
        {
            throw new NbdException(NbdError.NotSupported, "a range that is not aligned cannot be zeroed fast");
        }
        return ZeroUnitsAsync(offset, length, flags, cancellationToken);
    }

    /// <summary>Gives up the content of the whole units in a range.</summary>
    public async ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        long head = (_unit - (offset % _unit)) % _unit;
        long whole = head < length ? (length - head) / _unit * _unit : 0;
        if (whole == 0)
        {
            return;
        }
        offset += head;
        using RangeLock.Holder? held = await EnterAsync(offset, whole, cancellationToken).ConfigureAwait(false);
        await _next.TrimAsync(offset, whole, flags, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Hints that a range will be read.</summary>
    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
    {
        long start = offset - (offset % _unit);
        long more = (_unit - ((offset + length) % _unit)) % _unit;
        return _next.CacheAsync(start, Math.Min(offset + length - start + more, Size - start), cancellationToken);
    }

    private async ValueTask WriteUnitsAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        while (!data.IsEmpty)
        {
            int count = WholeUnits(offset, data.Length);
            if (count > 0)
            {
                using RangeLock.Holder? held = await EnterAsync(offset, count, cancellationToken).ConfigureAwait(false);
                await _next.WriteAsync(data[..count], offset, flags, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                count = await WritePartAsync(data, offset, flags, cancellationToken).ConfigureAwait(false);
            }
            data = data[count..];
            offset += count;
        }
    }

    private async ValueTask ZeroUnitsAsync(
        long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        while (length > 0)
        {
            long count = offset % _unit == 0 ? length / _unit * _unit : 0;
            if (count > 0)
            {
                using RangeLock.Holder? held = await EnterAsync(offset, count, cancellationToken).ConfigureAwait(false);
                await _next.ZeroAsync(offset, count, flags, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                ReadOnlyMemory<byte> zeroes = Zeroes.AsMemory(0, (int)Math.Min(length, Zeroes.Length));
                count = await WritePartAsync(zeroes, offset, flags & RequestFlags.Fua, cancellationToken).ConfigureAwait(false);
            }
            offset += count;
            length -= count;
        }
    }

    /// <summary>Writes what is in the first unit of a range, and returns how much that was.</summary>
    private async ValueTask<int> WritePartAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        byte[] rented = ArrayPool<byte>.Shared.Rent(_unit);
        try
        {
            (long start, Memory<byte> unit) = UnitOf(rented, offset);
            int head = (int)(offset - start);
            int count = Math.Min(data.Length, unit.Length - head);
            using RangeLock.Holder held = await _units!
                .EnterAsync(start, start + unit.Length, exclusive: true, cancellationToken).ConfigureAwait(false);
            await _next.ReadAsync(unit, start, cancellationToken).ConfigureAwait(false);
            data[..count].CopyTo(unit[head..]);
            await _next.WriteAsync(unit, start, flags, cancellationToken).ConfigureAwait(false);
            return count;
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private async ValueTask<RangeLock.Holder?> EnterAsync(long offset, long length, CancellationToken cancellationToken)
        => _units is null
            ? null
            : await _units.EnterAsync(offset, offset + length, exclusive: false, cancellationToken).ConfigureAwait(false);
}
