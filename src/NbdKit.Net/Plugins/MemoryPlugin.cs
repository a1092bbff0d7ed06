namespace NbdKit.Plugins;

/// <summary>placeholder</summary>
public sealed class MemoryPlugin : INbdPlugin, INbdPluginHandle
{
    private byte[] _data = [];

    /// <summary>The plugin in the catalogue.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "memory",
        "a disk in memory",
        [new NbdParameter("size", "size of the disk") { IsRequired = true }],
        p => new MemoryPlugin { Size = p.Size("size") ?? 0 })
    {
        MagicParameter = "size",
    };

    /// <summary>Size of the disk in bytes.</summary>
    public required long Size { get; init; }

    /// <inheritdoc/>
    public string Name => "memory";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        _data = new byte[Size];
        return default;
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(new NbdExportInfo { Size = Size, CanWrite = true, CanFlush = true, CanMultiConn = true, CanFua = Support.Native });

    /// <inheritdoc/>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        _data.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
        return default;
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        data.Span.CopyTo(_data.AsSpan((int)offset));
        return default;
    }

    /// <inheritdoc/>
    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;
}
