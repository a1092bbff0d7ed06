namespace NbdKit.Tests.Testing;

/// <summary>
/// An opened layer that says of itself what a test wants: a plugin alone, or a filter over a plugin that can do everything.
/// The rules of <see cref="NextContext"/> hold for both alike.
/// </summary>
internal sealed class TestedLayer : IAsyncDisposable
{
    public const string Plugin = "plugin";
    public const string Filter = "filter";

    private readonly RecordedChain _chain;
    private readonly string _name;

    private TestedLayer(RecordedChain chain, string name, NextContext disk)
    {
        _chain = chain;
        _name = name;
        Disk = disk;
        _chain.Calls.Clear();
    }

    public NextContext Disk { get; }

    public CallScript Script => _chain.Script(_name);

    public RecordingPlugin PluginBelow => _chain.Plugin;

    /// <summary>The data calls that reached the layer, such as <c>write 0+4 Fua</c>.</summary>
    public IReadOnlyList<string> Calls
        => [.. _chain.Calls.Calls
            .Where(call => call.Layer == _name && !call.Failed)
            .Select(call => call.Callback is "flush"
                ? call.Callback
                : $"{call.Callback} {call.Offset}+{call.Length}{(call.Flags == 0 ? "" : " " + call.Flags)}")];

    public static async Task<TestedLayer> OpenAsync(
        string kind, Func<NbdExportInfo, NbdExportInfo>? info = null, bool readOnly = false, int size = 65_536)
    {
        var chain = new RecordedChain(size, kind == Filter ? [Filter] : []);
        if (info is not null && kind == Filter)
        {
            chain.Filters[0].Info = (_, below) => info(below);
        }
        else if (info is not null)
        {
            chain.Plugin.Info = (_, own) => info(own);
        }
        return new TestedLayer(chain, kind, await chain.Backend.OpenAsync("disk", readOnly));
    }

    public async ValueTask DisposeAsync()
    {
        await Disk.DisposeAsync();
        await _chain.Backend.DisposeAsync();
    }
}
