using NbdKit.Buffers;
using NbdKit.Filters.Mapping;

namespace NbdKit.Filters;

/// <summary>Puts ranges of the disk elsewhere in the layer below (nbdkit-map-filter(1)).</summary>
/// <remarks>
/// What is in no range lies where it lies below. A request that touches several ranges is made of one request for each, one after
/// the other, and fails as a whole if one of them does; where a range, or the disk, goes beyond the end of the layer below, requests
/// fail with EIO. If the layer below has a minimum block size, all ranges must begin and end at multiples of it, or opening fails
/// with EINVAL.
/// </remarks>
public sealed class MapFilter : INbdFilter, INbdFilterHandle, ILendingFilter
{
    private readonly MapPieces _pieces = new([]);

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "map",
        "put ranges of the disk elsewhere in the layer below",
        [
            new NbdParameter("map", "START-END:DEST, the last byte included; the first that matches counts") { IsRepeatable = true },
            new NbdParameter("map-size", "size of the disk (default: that of the layer below)"),
        ],
        parameters => new MapFilter { Ranges = [.. parameters.Texts("map").Select(Parse)], Size = parameters.Size("map-size") });

    /// <summary>The ranges. Where several overlap, the first in the list counts.</summary>
    /// <value>None by default.</value>
    /// <exception cref="ArgumentException">A range ends before it begins, is negative, or ends beyond 2^63-1.</exception>
    public IReadOnlyList<MapRange> Ranges
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(Ranges));
            foreach (MapRange range in value)
            {
                if (!range.IsValid)
                {
                    throw new ArgumentException($"{range} is no range that can be put elsewhere.", nameof(Ranges));
                }
            }
            field = [.. value];
            _pieces = new MapPieces(field);
        }
    }
    = [];

    /// <summary>The size of the disk in bytes, or null for that of the layer below.</summary>
    /// <value>Null by default; else 0 or more.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Size
    {
        get;
        init
        {
            if (value is { } size)
            {
                ArgumentOutOfRangeException.ThrowIfNegative(size, nameof(Size));
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "map";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
    {
        if (Size is { } size && size != next.Info.Size)
        {
            Window.RequireAligned(next, "what follows the disk", size);
        }
        foreach (MapRange range in Ranges)
        {
            Window.RequireAligned(next, $"range {range.Start}-{range.End}:{range.Destination}", range.Start);
            Window.RequireAligned(next, $"the destination of range {range.Start}-{range.End}", range.Destination);
            Window.RequireAligned(next, $"what follows range {range.Start}-{range.End}", range.End + 1);
        }
        return default;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with
        {
            Size = Size ?? next.Info.Size,
            // Where the holes are is asked first, range by range.
            CanReadSparse = next.Info is { CanExtents: true, CanReadSparse: not Support.None } ? Support.Emulate : Support.None,
        });

    /// <inheritdoc/>
    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        long below = _pieces.Find(offset, out long length);
        return length >= buffer.Length
            ? next.ReadAsync(buffer, Checked(next, below, buffer.Length), cancellationToken)
            : ReadPiecesAsync(next, buffer, offset, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        long below = _pieces.Find(offset, out long length);
        return length >= data.Length
            ? next.WriteAsync(data, Checked(next, below, data.Length), flags, cancellationToken)
            : WritePiecesAsync(next, data, offset, flags, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => EachAsync(next, offset, length, (at, count) => next.TrimAsync(at, count, flags, cancellationToken));

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        // A fast zero that is refused must have had no effect, which several requests cannot promise.
        => (flags & RequestFlags.FastZero) != 0 && IsDivided(offset, length)
            ? throw new NbdException(NbdError.NotSupported, "the range lies in several places, which takes a request for each")
            : EachAsync(next, offset, length, (at, count) => next.ZeroAsync(at, count, flags, cancellationToken));

    /// <inheritdoc/>
    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => EachAsync(next, offset, length, (at, count) => next.CacheAsync(at, count, cancellationToken));

    /// <inheritdoc/>
    public async ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        long end = offset + length;
        do
        {
            long below = _pieces.Find(offset, out long count);
            count = Math.Min(count, end - offset);
            long there = Math.Min(count, next.Info.Size - below);
            if (there <= 0)
            {
                // It cannot be read: nothing is promised of it.
                extents.Add(offset, count, ExtentStatus.Data);
                offset += count;
                continue;
            }
            var list = new ExtentList(below, below + there, extents.MetaContext);
            await next.ExtentsAsync(below, there, flags, list, cancellationToken).ConfigureAwait(false);
            foreach (Extent extent in list)
            {
                extents.Add(extent.Offset - below + offset, extent.Length, extent.Status);
            }
            offset += list.Covered - below;
            if (list.Count == 0)
            {
                return;
            }
        }
        while (offset < end && !extents.IsFull && (flags & RequestFlags.RequestOne) == 0);
    }

    bool INbdFilterHandle.KeepsNext => true;

    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
    {
        long below = _pieces.Find(offset, out long count);
        return count >= length && below <= next.Info.Size - length && next.TryLend(below, length, loan, forWrite);
    }

    void ILendingFilter.Prefetch(NextContext next, long offset)
        => next.Prefetch(offset < 0 ? offset : _pieces.Find(offset, out _));

    private static MapRange Parse(string text)
    {
        try
        {
            return MapRange.Parse(text);
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"map: map={text}: {e.Message}", e);
        }
    }

    private bool IsDivided(long offset, long length)
    {
        _ = _pieces.Find(offset, out long together);
        return together < length;
    }

    private static long Checked(NextContext next, long below, long length)
        => below <= next.Info.Size - length
            ? below
            : throw new NbdException(
                NbdError.IoError, $"{length} bytes at {below} of {next.Backend.Name} are needed, which has {next.Info.Size} bytes");

    private async ValueTask ReadPiecesAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (buffer.Length > 0)
        {
            long below = _pieces.Find(offset, out long length);
            int count = (int)Math.Min(length, buffer.Length);
            await next.ReadAsync(buffer[..count], Checked(next, below, count), cancellationToken).ConfigureAwait(false);
            buffer = buffer[count..];
            offset += count;
        }
    }

    private async ValueTask WritePiecesAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        while (data.Length > 0)
        {
            long below = _pieces.Find(offset, out long length);
            int count = (int)Math.Min(length, data.Length);
            await next.WriteAsync(data[..count], Checked(next, below, count), flags, cancellationToken).ConfigureAwait(false);
            data = data[count..];
            offset += count;
        }
    }

    private async ValueTask EachAsync(NextContext next, long offset, long length, Func<long, long, ValueTask> call)
    {
        while (length > 0)
        {
            long below = _pieces.Find(offset, out long count);
            count = Math.Min(count, length);
            await call(Checked(next, below, count), count).ConfigureAwait(false);
            offset += count;
            length -= count;
        }
    }
}
