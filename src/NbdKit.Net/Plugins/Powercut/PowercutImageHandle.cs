namespace NbdKit.Plugins.Powercut;

/// <summary>Serves an image to any number of contexts, read-only.</summary>
internal sealed class PowercutImageHandle(PowercutImage image, PowercutDisk disk) : INbdPluginHandle
{
    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = image.Size,
        CanFlush = true,
        CanMultiConn = true,
        IsBlocking = disk.Info.IsBlocking,
    });

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => image.ReadAsync(buffer, offset, cancellationToken);

    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;
}
