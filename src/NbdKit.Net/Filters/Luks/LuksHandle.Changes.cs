using System.Buffers;
using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Filters.Luks;

// Writes, and all that carries no data. Whole units are entered shared: they may pass each other, but not land between the
// reading and the writing back of a unit that is changed in part, which is entered alone.
internal sealed partial class LuksHandle
{
    // What is enciphered and written at once; a multiple of every unit.
    private const int PieceBytes = 256 << 10;

    public ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => IsAligned(offset, data.Length)
            ? WriteUnitsAsync(next, data, offset, flags, cancellationToken)
            : WritePartsAsync(next, data, offset, flags, cancellationToken);

    /// <summary>Passes on what covers whole units. What a trimmed unit holds is undefined anyway, so nobody is kept away.</summary>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        long start = RoundUp(offset);
        long end = RoundDown(offset + length);
        return start < end ? next.TrimAsync(_start + start, end - start, flags, cancellationToken) : default;
    }

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        long start = RoundDown(offset);
        return next.CacheAsync(_start + start, RoundUp(offset + length) - start, cancellationToken);
    }

    public async ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        long start = RoundDown(offset);
        ExtentList below;
        if (start == offset)
        {
            below = new ExtentList(_start + offset, _start + Math.Min(_size, extents.End), extents.MetaContext);
            await next.ExtentsAsync(_start + offset, RoundUp(length), flags, below, cancellationToken).ConfigureAwait(false);
        }
        else
        {
            // An answer about the first unit that stops early might end before what was asked for.
            below = await next.ExtentsFullAsync(_start + start, _unit, extents.MetaContext, cancellationToken)
                .ConfigureAwait(false);
        }
        // A hole has undefined content here, not zeroes.
        bool isAllocation = extents.MetaContext == ExtentList.BaseAllocation;
        for (int i = 0; i < below.Count && !extents.IsFull; i++)
        {
            ExtentStatus status = below[i].Status;
            extents.Add(below[i].Offset - _start, below[i].Length, isAllocation ? status & ~ExtentStatus.Zero : status);
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask WriteUnitsAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        int most = Math.Min(data.Length, PieceBytes);
        if (most > InlineBytes)
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        }
        byte[] encrypted = ArrayPool<byte>.Shared.Rent(most);
        try
        {
            while (!data.IsEmpty)
            {
                int count = Math.Min(data.Length, most);
                _cipher.Encrypt(data.Span[..count], encrypted.AsSpan(0, count), offset);
                using (await _locks.EnterAsync(offset, offset + count, exclusive: false, cancellationToken).ConfigureAwait(false))
                {
                    await next.WriteInPiecesAsync(encrypted.AsMemory(0, count), offset + _start, flags, cancellationToken)
                        .ConfigureAwait(false);
                }
                data = data[count..];
                offset += count;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(encrypted);
        }
    }

    private async ValueTask WritePartsAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        while (!data.IsEmpty)
        {
            int skip = (int)(offset & (_unit - 1));
            int count = data.Length & -_unit;
            if (skip == 0 && count > 0)
            {
                await WriteUnitsAsync(next, data[..count], offset, flags, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                count = Math.Min(data.Length, _unit - skip);
                await ChangeUnitAsync(next, data[..count], offset, flags, cancellationToken).ConfigureAwait(false);
            }
            data = data[count..];
            offset += count;
        }
    }

    /// <summary>Reads and decrypts a unit, changes a part of it, and writes it back.</summary>
    private async ValueTask ChangeUnitAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        long start = RoundDown(offset);
        using RangeLock.Holder held = await _locks.EnterAsync(start, start + _unit, exclusive: true, cancellationToken)
            .ConfigureAwait(false);
        byte[] bounce = ArrayPool<byte>.Shared.Rent(_unit);
        try
        {
            Memory<byte> unit = bounce.AsMemory(0, _unit);
            await next.ReadInPiecesAsync(unit, start + _start, cancellationToken).ConfigureAwait(false);
            _cipher.Decrypt(unit.Span, unit.Span, start);
            data.Span.CopyTo(unit.Span[(int)(offset - start)..]);
            _cipher.Encrypt(unit.Span, unit.Span, start);
            await next.WriteInPiecesAsync(unit, start + _start, flags, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(bounce);
        }
    }
}
