namespace NbdKit.Plugins;

/// <summary>
/// A disk without any space left: it reads as zeroes, and every write fails with ENOSPC (nbdkit-full-plugin(1)). Good for
/// testing how programs take a full disk.
/// </summary>
/// <remarks>
/// Trims fail too. Zeroes are emulated by writes, so they fail alike, and fast zeroes are declined. All is a hole.
/// </remarks>
public sealed class FullPlugin : INbdPlugin, INbdPluginHandle
{
    /// <summary>The plugin in the catalogue: <c>full</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "full",
        "a disk that is full: it reads as zeroes, and writes fail with ENOSPC",
        [new NbdParameter("size", "size of the disk") { IsRequired = true }],
        parameters => new FullPlugin
        {
            Size = parameters.Size("size") ?? throw new ArgumentException("full: the parameter size= is required."),
        })
    {
        MagicParameter = "size",
    };

    /// <summary>Size of the disk in bytes, from 0 to 2^63-1.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public required long Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "full";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(this);

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = Size,
        CanWrite = true,
        CanTrim = true,
        CanCache = Support.Native,
        CanMultiConn = true,
        CanExtents = true,
        CanReadSparse = Support.Emulate,
    });

    /// <inheritdoc/>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        buffer.Span.Clear();
        return default;
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => throw NoSpace();

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw NoSpace();

    /// <inheritdoc/>
    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        extents.Add(offset, length, ExtentStatus.Hole | ExtentStatus.Zero);
        return default;
    }

    private static NbdException NoSpace() => new(NbdError.NoSpace, "the disk is full");
}
