using System.Buffers;

namespace NbdKit.Layers;

/// <summary>
/// The disk that an image is on. Takes requests of any alignment and size, and turns them into ones that the layer
/// below takes.
/// </summary>
internal sealed partial class ImageDisk
{
    private readonly NextContext _next;
    private readonly int _unit;
    private readonly int _largest;

    public ImageDisk(NextContext next)
    {
        _next = next;
        BlockSize limits = next.Info.BlockSize;
        _unit = (int)Math.Max(limits.Minimum, 1);
        _largest = limits.Maximum > 0 ? (int)Math.Min(limits.Maximum, int.MaxValue / _unit * _unit) : int.MaxValue / _unit * _unit;
        // A part that is less than a unit is changed by reading and writing the unit.
        _units = _unit > 1 ? new RangeLock() : null;
    }

    public long Size => _next.Info.Size;

    /// <summary>Fills a buffer; the caller has checked that the range is inside the disk.</summary>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => buffer.Length <= _largest && IsAligned(offset, buffer.Length)
            ? _next.ReadAsync(buffer, offset, cancellationToken)
            : ReadUnitsAsync(buffer, offset, cancellationToken);

    private async ValueTask ReadUnitsAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        byte[]? rented = null;
        try
        {
            while (!buffer.IsEmpty)
            {
                int count = WholeUnits(offset, buffer.Length);
                if (count > 0)
                {
                    await _next.ReadAsync(buffer[..count], offset, cancellationToken).ConfigureAwait(false);
                }
                else
                {
                    rented ??= ArrayPool<byte>.Shared.Rent(_unit);
                    (long start, Memory<byte> unit) = UnitOf(rented, offset);
                    await _next.ReadAsync(unit, start, cancellationToken).ConfigureAwait(false);
                    int head = (int)(offset - start);
                    count = Math.Min(buffer.Length, unit.Length - head);
                    unit.Slice(head, count).CopyTo(buffer);
                }
                buffer = buffer[count..];
                offset += count;
            }
        }
        finally
        {
            if (rented is not null)
            {
                ArrayPool<byte>.Shared.Return(rented);
            }
        }
    }

    private bool IsAligned(long offset, long length)
        => _unit == 1 || (offset % _unit == 0 && (length % _unit == 0 || offset + length == Size));

    /// <summary>How much of a range can be one request: whole units from its start, or 0.</summary>
    private int WholeUnits(long offset, int length)
        => offset % _unit == 0 ? Math.Min(length, _largest) / _unit * _unit : 0;

    /// <summary>The unit around a byte. The last one of the disk may be short.</summary>
    private (long Start, Memory<byte> Unit) UnitOf(byte[] rented, long offset)
    {
        long start = offset - (offset % _unit);
        return (start, rented.AsMemory(0, (int)Math.Min(_unit, Size - start)));
    }
}
