namespace NbdKit.Plugins;

/// <summary>
/// A disk that forgets: it takes every write and reads as zeroes (nbdkit-null-plugin(1)). Good for measuring, and as
/// the end of a chain whose filters do the work.
/// </summary>
/// <remarks>It says that all is a hole, and that it does everything by itself: FUA, trim, fast zero, cache.</remarks>
public sealed class NullPlugin : INbdPlugin, INbdPluginHandle
{
    /// <summary>The plugin in the catalogue: <c>null</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "null",
        "a disk that drops writes and reads as zeroes",
        [new NbdParameter("size", "size of the disk (0)")],
        parameters => new NullPlugin { Size = parameters.Size("size") ?? 0 })
    {
        MagicParameter = "size",
    };

    /// <summary>Size of the disk in bytes, from 0 to 2^63-1.</summary>
    /// <value>0 by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "null";

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
        CanFlush = true,
        CanTrim = true,
        CanZero = Support.Native,
        CanFastZero = true,
        CanFua = Support.Native,
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
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken) => default;

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    /// <inheritdoc/>
    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => default;

    /// <inheritdoc/>
    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => default;

    /// <inheritdoc/>
    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        extents.Add(offset, length, ExtentStatus.Hole | ExtentStatus.Zero);
        return default;
    }
}
