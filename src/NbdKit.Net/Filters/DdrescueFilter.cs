using Microsoft.Win32.SafeHandles;
using NbdKit.Filters.Ddrescue;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Makes the ranges of an image unreadable that GNU ddrescue could not rescue, by its map file (nbdkit-ddrescue-filter(1)).
/// </summary>
/// <remarks>
/// Read-only. A read that touches a range that the map does not have as rescued fails with EIO; one that spans several rescued ranges
/// does not, as it does with nbdkit. Such ranges are never told to be holes.
/// </remarks>
public sealed class DdrescueFilter : INbdFilter
{
    // A map of more than a million ranges.
    private const long LargestFile = 64 << 20;

    private RescueMap? _map;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "ddrescue",
        "makes what ddrescue could not rescue unreadable",
        [new NbdParameter("ddrescue-mapfile", "the map file of ddrescue") { IsRequired = true }],
        parameters => new DdrescueFilter { MapFile = parameters.Required("ddrescue-mapfile") });

    /// <summary>The path of the map file, which is read when the chain starts: at most 64 MiB.</summary>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public required string MapFile
    {
        get;
        init
        {
            ArgumentException.ThrowIfNullOrWhiteSpace(value);
            field = Path.GetFullPath(value);
        }
    }

    /// <inheritdoc/>
    public string Name => "ddrescue";

    /// <inheritdoc/>
    /// <exception cref="FormatException">The map is wrong; the message says where.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        using SafeFileHandle file = File.OpenHandle(MapFile);
        long length = RandomAccess.GetLength(file);
        if (length > LargestFile)
        {
            throw new FormatException($"The map file {MapFile} is larger than 64 MiB.");
        }
        // No more than it said it has: what is not a file may have no end.
        byte[] text = new byte[length];
        int read = 0;
        while (read < text.Length && RandomAccess.Read(file, text.AsSpan(read), read) is > 0 and var count)
        {
            read += count;
        }
        try
        {
            _map = RescueMap.Parse(new StreamReader(new MemoryStream(text, 0, read)));
        }
        catch (FormatException e)
        {
            throw new FormatException($"The map file {MapFile} cannot be used. {e.Message}", e);
        }
        return default;
    }

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        return next.PreconnectAsync(connection, readOnly: true, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask ListExportsAsync(
        NbdBackend next, ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        return next.ListExportsAsync(exports, readOnly: true, connection, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        return next.DefaultExportAsync(readOnly: true, connection, cancellationToken);
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(readOnly: true, context.ExportName, cancellationToken).ConfigureAwait(false);
        return new Handle(_map!);
    }

    private sealed class Handle(RescueMap map) : INbdFilterHandle
    {
        public bool KeepsNext => true;

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        {
            NbdExportInfo info = next.Info;
            // A hint does not fail.
            return new(info with { CanCache = info.CanCache.ComesThrough() });
        }

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => map.IsGood(offset, buffer.Length) ? next.ReadAsync(buffer, offset, cancellationToken) : Fail(offset, buffer.Length);

        public ValueTask ReadSparseAsync(
            NextContext next, Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
            => map.IsGood(offset, buffer.Length)
                ? next.ReadSparseAsync(buffer, offset, extents, cancellationToken)
                : Fail(offset, buffer.Length);

        public ValueTask ExtentsAsync(
            NextContext next,
            long offset,
            long length,
            RequestFlags flags,
            ExtentList extents,
            CancellationToken cancellationToken)
            => extents.MetaContext != ExtentList.BaseAllocation || map.IsGood(offset, extents.End - offset)
                ? next.ExtentsAsync(offset, length, flags, extents, cancellationToken)
                : MergeExtentsAsync(next, offset, length, flags, extents, cancellationToken);

        private async ValueTask MergeExtentsAsync(
            NextContext next,
            long offset,
            long length,
            RequestFlags flags,
            ExtentList extents,
            CancellationToken cancellationToken)
        {
            var below = new ExtentList(offset, extents.End, extents.MetaContext);
            await next.ExtentsAsync(offset, length, flags, below, cancellationToken).ConfigureAwait(false);
            foreach (Extent extent in below)
            {
                for (long at = extent.Offset; at < extent.End && !extents.IsFull;)
                {
                    (long end, bool isGood) = map.Piece(at, extent.End);
                    extents.Add(at, end - at, isGood ? extent.Status : ExtentStatus.Data);
                    at = end;
                }
            }
        }

        private static ValueTask Fail(long offset, int length) => ValueTask.FromException(
            new NbdException(NbdError.IoError, $"not all of the {length} bytes at {offset} could be rescued"));
    }
}
