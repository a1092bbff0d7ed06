namespace NbdKit.Benchmarks;

/// <summary>A disk whose reads leave the buffer as it is, so that what is measured is not the plugin.</summary>
internal sealed class TrivialPlugin : INbdPlugin, INbdPluginHandle
{
    public string Name => "trivial";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(this);

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(new NbdExportInfo { Size = 1L << 30, CanMultiConn = true });

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken) => default;
}
