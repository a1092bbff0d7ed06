namespace NbdKit.Plugins;

/// <summary>A disk of no bytes at all, read-only (nbdkit-zero-plugin(1)): a legal export that few programs expect.</summary>
public sealed class ZeroPlugin : INbdPlugin, INbdPluginHandle
{
    /// <summary>The plugin in the catalogue, as <c>zero</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new("zero", "a disk of size 0", [], _ => new ZeroPlugin());

    /// <inheritdoc/>
    public string Name => "zero";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(this);

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(new NbdExportInfo { Size = 0, CanCache = Support.Native, CanMultiConn = true });

    /// <summary>Never called, since no range lies inside the disk.</summary>
    /// <inheritdoc/>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => throw new NbdException(NbdError.IoError, "the disk is empty");
}
