using NbdKit.Layers;

namespace NbdKit.Filters.Qcow2;

/// <summary>Opens an image, and the files that it names.</summary>
internal sealed class ImageOpener
{
    private const int MostImages = 64;

    private readonly Qcow2DecFilter _filter;
    private readonly NbdBackend _holder;
    private readonly BlockCache _tables;
    private readonly BlockCache _clusters;
    private readonly List<string> _names = [];

    private ImageOpener(Qcow2DecFilter filter, NbdBackend holder)
    {
        _filter = filter;
        _holder = holder;
        // All images of a chain together have no more than this.
        _tables = new BlockCache(filter.CacheSize / 2);
        _clusters = new BlockCache(filter.CacheSize / 2);
    }

    public static ValueTask<Image> OpenAsync(
        Qcow2DecFilter filter, NbdBackend holder, NextContext next, CancellationToken cancellationToken)
        => new ImageOpener(filter, holder).OpenAsync(new ImageDisk(next), null, filter.Snapshot, null, cancellationToken);

    /// <param name="file">The image.</param>
    /// <param name="own">The same, if it is to be closed with the image. On failure it is not closed.</param>
    /// <param name="snapshot">The snapshot to open, or null.</param>
    /// <param name="name">The name that another image has for it, or null for the first one.</param>
    /// <param name="cancellationToken">Gives up.</param>
    private async ValueTask<Image> OpenAsync(
        ImageDisk file, InnerContext? own, string? snapshot, string? name, CancellationToken cancellationToken)
    {
        Header header = await ReadHeaderAsync(file, cancellationToken).ConfigureAwait(false);
        if (header.IsCorrupt && !_filter.AllowCorrupt)
        {
            throw Fault.Refused("the qcow2 image is marked as corrupt; repair it, or allow it to be read as it is");
        }
        var tables = new TablePages(file, _tables, header.ClusterSize);
        (L1Table l1, long size) = snapshot is null
            ? (header.L1, header.Size)
            : await SnapshotTable.FindAsync(header, tables, file.Size, snapshot, cancellationToken).ConfigureAwait(false);
        InnerContext? data = null;
        IDisk? backing = null;
        try
        {
            if (header.HasDataFile)
            {
                string dataName = header.DataFile
                    ?? throw Fault.Refused("the qcow2 image has its data in an external file, which it does not name");
                data = await OpenFileAsync("external data file", FileReference.Resolve(name, dataName), "raw", cancellationToken)
                    .ConfigureAwait(false);
            }
            if (header.BackingFile is not null)
            {
                backing = await OpenBackingAsync(
                    FileReference.Resolve(name, header.BackingFile), header.BackingFormat, cancellationToken).ConfigureAwait(false);
            }
            return new Image(new ImageParts(header, l1, size, file, tables, own, data, backing), _clusters);
        }
        catch
        {
            if (backing is not null)
            {
                await backing.DisposeAsync().ConfigureAwait(false);
            }
            if (data is not null)
            {
                await data.CloseAsync().ConfigureAwait(false);
            }
            throw;
        }
    }

    private async ValueTask<IDisk> OpenBackingAsync(string name, string? format, CancellationToken cancellationToken)
    {
        if (_names.Contains(name))
        {
            throw Fault.Refused($"the backing file '{name}' is its own backing file: {string.Join(" -> ", _names)} -> {name}");
        }
        if (_names.Count + 1 >= MostImages)
        {
            throw Fault.Refused($"the backing files are more than {MostImages} levels deep");
        }
        _names.Add(name);
        InnerContext inner = await OpenFileAsync("backing file", name, format, cancellationToken).ConfigureAwait(false);
        if (format != "qcow2")
        {
            return new RawDisk(inner);
        }
        try
        {
            return await OpenAsync(new ImageDisk(inner.Next), inner, null, name, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            await inner.CloseAsync().ConfigureAwait(false);
            if (e is NbdException failure)
            {
                throw new NbdException(failure.Error, $"backing file '{name}': {failure.Message}", failure);
            }
            throw;
        }
    }

    private async ValueTask<InnerContext> OpenFileAsync(
        string what, string name, string? format, CancellationToken cancellationToken)
    {
        Func<string, string?, NbdBackend?> open = _filter.FileOpener
            ?? throw Fault.Refused($"the qcow2 image needs the {what} '{name}', and nothing allows other files to be opened");
        NbdBackend chain = open(name, format)
            ?? throw Fault.Refused($"the qcow2 image needs the {what} '{name}', which is not allowed");
        try
        {
            InnerContext inner = await InnerContext.OpenAsync(chain, _holder, readOnly: true, "", null, cancellationToken)
                .ConfigureAwait(false);
            // Every call comes through the layer above, which waits for it.
            inner.Next.CountsCalls = false;
            return inner;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // What it says may name a path of the host, which is not for clients.
            throw new NbdException(NbdError.IoError, $"the {what} '{name}' of the qcow2 image cannot be opened", e);
        }
    }

    private static async ValueTask<Header> ReadHeaderAsync(ImageDisk file, CancellationToken cancellationToken)
    {
        byte[] start = new byte[(int)Math.Min(512, file.Size)];
        if (start.Length > 0)
        {
            await file.ReadAsync(start, 0, cancellationToken).ConfigureAwait(false);
        }
        // The name of the backing file, and all the extensions, are in the first cluster.
        if (start.Length == 512 && new ReadOnlySpan<byte>(start).U32(0) == Header.Magic)
        {
            start = new byte[(int)Math.Min(1 << Header.ClusterBitsOf(start), file.Size)];
            await file.ReadAsync(start, 0, cancellationToken).ConfigureAwait(false);
        }
        return Header.Read(start);
    }
}
