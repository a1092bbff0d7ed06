namespace NbdKit.Faults.Failing;

/// <summary>A plugin, and its handle, one of whose callbacks fails.</summary>
internal sealed class FailingPlugin(FailureSource source, byte[] content, bool sparse) : INbdPlugin
{
    private int _opened;
    private int _closed;

    public string Name => "failing";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    public int Opened => Volatile.Read(ref _opened);

    public int Closed => Volatile.Read(ref _closed);

    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken) => source.PassAsync(Callback.GetReady);

    public ValueTask StartAsync(CancellationToken cancellationToken) => source.PassAsync(Callback.Start);

    public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => source.PassAsync(Callback.Preconnect);

    public ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        if (source.IsNonsense(Callback.ListExports))
        {
            exports.Add(new string('n', 5000), "\0");
        }
        exports.Add("");
        return source.PassAsync(Callback.ListExports);
    }

    public async ValueTask<string?> DefaultExportAsync(bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        if (source.IsNonsense(Callback.DefaultExport))
        {
            return new string('n', 5000);
        }
        await source.PassAsync(Callback.DefaultExport);
        return "";
    }

    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        if (source.IsNonsense(Callback.Open))
        {
            return null!;
        }
        await source.PassAsync(Callback.Open);
        Interlocked.Increment(ref _opened);
        return new FailingHandle(this, source, content, sparse);
    }

    public ValueTask CleanupAsync(CancellationToken cancellationToken) => source.PassAsync(Callback.Cleanup);

    public void CountClosed() => Interlocked.Increment(ref _closed);
}
