using System.Buffers;
using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Filters.Luks;

/// <summary>One context of the luks filter: what it offers, and reads.</summary>
/// <remarks>
/// A unit is what can be read and written alone: a sector, or a block of the layer below if that is larger. Offsets without
/// a name are those of the data.
/// </remarks>
internal sealed partial class LuksHandle : INbdFilterHandle
{
    // Up to this size an unaligned read becomes one read of whole units; of a larger one only the ends are copied.
    private const int LargestBounce = 64 << 10;

    // More than this is not enciphered on the thread that receives requests: handing it over takes less time.
    private const int InlineBytes = 32 << 10;

    private readonly LuksFilter _filter;
    private readonly NbdContext _context;
    private readonly RangeLock _locks;
    private Volume? _volume;
    private SectorCipher _cipher = null!;
    private long _start;
    private long _size;
    private int _unit;

    public LuksHandle(LuksFilter filter, NbdContext context, RangeLock locks)
    {
        _filter = filter;
        _context = context;
        _locks = locks;
    }

    bool INbdFilterHandle.KeepsNext => true;

    public async ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        VolumeHeader header = await VolumeHeader.ReadAsync(next, cancellationToken).ConfigureAwait(false);
        Window.RequireAligned(next, "the data of the encrypted disk", header.Offset);
        _volume = await _filter.AcquireAsync(_context, header, next, cancellationToken).ConfigureAwait(false);
        _cipher = _volume.Cipher;
        _start = header.Offset;
        _unit = (int)Math.Max(header.SectorSize, next.Info.BlockSize.Minimum);
        _size = (header.Length ?? (next.Info.Size - _start)) & -_unit;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        NbdExportInfo info = next.Info;
        return new(info with
        {
            Size = _size,
            BlockSize = new BlockSize(1, Math.Max(Math.Max(info.BlockSize.Preferred, 4096), _unit)),
            CanTrim = info.CanTrim && (_filter.Discard ?? _volume!.Header.AllowsDiscards),
            // What is zero below is anything here.
            CanZero = Support.Emulate,
            CanFastZero = true,
            CanReadSparse = Support.None,
            // What is read to be forgotten need not be decrypted.
            CanCache = info.CanCache == Support.None ? Support.None : Support.Native,
        });
    }

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => IsAligned(offset, buffer.Length)
            ? ReadUnitsAsync(next, buffer, offset, cancellationToken)
            : ReadPartsAsync(next, buffer, offset, cancellationToken);

    public ValueTask CloseAsync()
    {
        if (_volume is not null)
        {
            _filter.Release(_volume);
        }
        return default;
    }

    // A unit that is being changed in part is not read before it is whole again: half of the old and half of the new
    // ciphertext would be wrong also where nothing was changed.
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadUnitsAsync(
        NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        bool isHere;
        RangeLock.Holder held = await _locks.EnterAsync(
            offset, offset + buffer.Length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            ValueTask reading = next.ReadInPiecesAsync(buffer, offset + _start, cancellationToken);
            isHere = reading.IsCompleted;
            await reading.ConfigureAwait(false);
        }
        finally
        {
            _locks.Exit(held);
        }
        if (isHere && buffer.Length > InlineBytes)
        {
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        }
        _cipher.Decrypt(buffer.Span, buffer.Span, offset);
    }

    private async ValueTask ReadPartsAsync(
        NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            int skip = (int)(offset & (_unit - 1));
            long covering = RoundUp(skip + (long)buffer.Length);
            int whole = buffer.Length & -_unit;
            if (skip == 0 && whole > 0 && covering > LargestBounce)
            {
                await ReadUnitsAsync(next, buffer[..whole], offset, cancellationToken).ConfigureAwait(false);
                buffer = buffer[whole..];
                offset += whole;
                continue;
            }
            int span = covering <= LargestBounce ? (int)covering : _unit;
            int count = Math.Min(buffer.Length, span - skip);
            byte[] bounce = ArrayPool<byte>.Shared.Rent(span);
            try
            {
                await ReadUnitsAsync(next, bounce.AsMemory(0, span), offset - skip, cancellationToken).ConfigureAwait(false);
                bounce.AsSpan(skip, count).CopyTo(buffer.Span);
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(bounce);
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    private bool IsAligned(long offset, long length) => ((offset | length) & (_unit - 1)) == 0;

    private long RoundDown(long value) => value & -_unit;

    // Never overflows where it is used: the size of the data is a multiple of the unit.
    private long RoundUp(long value) => (value + (_unit - 1)) & -_unit;
}
