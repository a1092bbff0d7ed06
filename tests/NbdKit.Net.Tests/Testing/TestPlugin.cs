using System.Collections.Concurrent;

namespace NbdKit.Tests.Testing;

/// <summary>Exports in memory that record every call and do to it what a test asks for.</summary>
internal sealed class TestPlugin(params IReadOnlyList<TestExport> exports) : INbdPlugin
{
    private readonly IReadOnlyList<TestExport> _exports = exports.Count > 0 ? exports : [new TestExport()];
    private int _opened;
    private int _closed;

    public string Name => "test";

    public ThreadModel ThreadModel { get; init; } = ThreadModel.Parallel;

    /// <summary>What "" stands for; null for no default export.</summary>
    public string? DefaultExport { get; init; } = "";

    /// <summary>Runs first when an export is opened, and may refuse it.</summary>
    public Func<NbdOpenContext, CancellationToken, ValueTask>? OnOpen { get; set; }

    /// <summary>Lists the exports in place of the plugin.</summary>
    public Action<ExportList, NbdConnection?>? OnList { get; set; }

    /// <summary>How many contexts were opened with success.</summary>
    public int Opened => Volatile.Read(ref _opened);

    public int Closed => Volatile.Read(ref _closed);

    /// <summary>Every data call, in the order of arrival.</summary>
    public ConcurrentQueue<PluginCall> Calls { get; } = [];

    /// <summary>The only export, or the first.</summary>
    public TestExport Export => _exports[0];

    /// <summary>The content of the only export, or the first.</summary>
    public byte[] Data => Export.Data;

    public int Count(PluginOp op) => Calls.Count(call => call.Op == op);

    public ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        if (OnList is not null)
        {
            OnList(exports, connection);
            return default;
        }
        foreach (TestExport export in _exports)
        {
            exports.Add(export.Name, export.Description);
        }
        return default;
    }

    public ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken) => new(DefaultExport);

    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        if (OnOpen is not null)
        {
            await OnOpen(context, cancellationToken);
        }
        TestExport export = _exports.FirstOrDefault(e => e.Name == context.ExportName)
            ?? throw new NbdException(NbdError.InvalidArgument, $"there is no export '{context.ExportName}'");
        Interlocked.Increment(ref _opened);
        return new TestHandle(this, export);
    }

    /// <summary>Notes that a context was closed.</summary>
    public void CountClosed() => Interlocked.Increment(ref _closed);
}
