using NbdKit.Filters;
using NbdKit.Plugins;

namespace NbdKit;

/// <summary>
/// Plugins and filters by name, so that a chain can be built from configuration. Starts with all that the library has; a host
/// adds its own.
/// </summary>
public sealed class NbdCatalogue
{
    private readonly Dictionary<string, NbdPluginEntry> _plugins = new(StringComparer.Ordinal);
    private readonly Dictionary<string, NbdFilterEntry> _filters = new(StringComparer.Ordinal);

    /// <summary>Creates a catalogue of everything in the library.</summary>
    public NbdCatalogue()
    {
        // One line for each plugin and filter, in alphabetical order.
        Add(ConcatPlugin.Entry);
        Add(DataPlugin.Entry);
        Add(EvalPlugin.Entry);
        Add(FilePlugin.Entry);
        Add(FloppyPlugin.Entry);
        Add(FullPlugin.Entry);
        Add(InfoPlugin.Entry);
        Add(IsoPlugin.Entry);
        Add(LinuxdiskPlugin.Entry);
        Add(MemoryPlugin.Entry);
        Add(MirrorPlugin.Entry);
        Add(NbdPlugin.Entry);
        Add(NullPlugin.Entry);
        Add(OndemandPlugin.Entry);
        Add(OnesPlugin.Entry);
        Add(OvaPlugin.Entry);
        Add(PartitioningPlugin.Entry);
        Add(PatternPlugin.Entry);
        Add(PowercutPlugin.Entry);
        Add(RandomPlugin.Entry);
        Add(ShPlugin.Entry);
        Add(SparseRandomPlugin.Entry);
        Add(SplitPlugin.Entry);
        Add(StripePlugin.Entry);
        Add(TmpdiskPlugin.Entry);
        Add(VdiPlugin.Entry);
        Add(VhdPlugin.Entry);
        Add(VhdxPlugin.Entry);
        Add(VmdkPlugin.Entry);
        Add(ZeroPlugin.Entry);
        Add(BlockSizeFilter.Entry);
        Add(BlockSizePolicyFilter.Entry);
        Add(CacheFilter.Entry);
        Add(CheckwriteFilter.Entry);
        Add(CountFilter.Entry);
        Add(CowFilter.Entry);
        Add(DdrescueFilter.Entry);
        Add(DelayFilter.Entry);
        Add(ErrorFilter.Entry);
        Add(EvilFilter.Entry);
        Add(ExitlastFilter.Entry);
        Add(ExitwhenFilter.Entry);
        Add(ExportnameFilter.Entry);
        Add(Ext2Filter.Entry);
        Add(ExtentlistFilter.Entry);
        Add(ForwardOnlyFilter.Entry);
        Add(FuaFilter.Entry);
        Add(GzipFilter.Entry);
        Add(IpFilter.Entry);
        Add(LimitFilter.Entry);
        Add(LogFilter.Entry);
        Add(LuksFilter.Entry);
        Add(MapFilter.Entry);
        Add(MultiConnFilter.Entry);
        Add(NocacheFilter.Entry);
        Add(NoextentsFilter.Entry);
        Add(NofilterFilter.Entry);
        Add(NoparallelFilter.Entry);
        Add(NozeroFilter.Entry);
        Add(OffsetFilter.Entry);
        Add(OpenonceFilter.Entry);
        Add(PartitionFilter.Entry);
        Add(PauseFilter.Entry);
        Add(ProtectFilter.Entry);
        Add(Qcow2DecFilter.Entry);
        Add(QuotaFilter.Entry);
        Add(RateFilter.Entry);
        Add(ReadaheadFilter.Entry);
        Add(ReadonlyFilter.Entry);
        Add(RetryFilter.Entry);
        Add(RetryRequestFilter.Entry);
        Add(RotationalFilter.Entry);
        Add(ScanFilter.Entry);
        Add(SpinningFilter.Entry);
        Add(StatsFilter.Entry);
        Add(SwabFilter.Entry);
        Add(TarFilter.Entry);
        Add(TimeLimitFilter.Entry);
        Add(TlsFallbackFilter.Entry);
        Add(TruncateFilter.Entry);
        Add(XorFilter.Entry);
    }

    /// <summary>The plugins, by name.</summary>
    public IReadOnlyCollection<NbdPluginEntry> Plugins => [.. _plugins.Values.OrderBy(p => p.Name, StringComparer.Ordinal)];

    /// <summary>The filters, by name.</summary>
    public IReadOnlyCollection<NbdFilterEntry> Filters => [.. _filters.Values.OrderBy(f => f.Name, StringComparer.Ordinal)];

    /// <summary>Adds a plugin, in place of one that has the same name.</summary>
    /// <param name="entry">The plugin.</param>
    public void Add(NbdPluginEntry entry) => _plugins[entry.Name] = entry;

    /// <summary>Adds a filter, in place of one that has the same name.</summary>
    /// <param name="entry">The filter.</param>
    public void Add(NbdFilterEntry entry) => _filters[entry.Name] = entry;

    /// <summary>The plugin of a name.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="ArgumentException">There is none; the message lists those there are.</exception>
    public NbdPluginEntry Plugin(string name)
        => _plugins.TryGetValue(name, out NbdPluginEntry? entry) ? entry : throw Unknown("plugin", name, Plugins.Select(p => p.Name));

    /// <summary>The filter of a name.</summary>
    /// <param name="name">Its name.</param>
    /// <exception cref="ArgumentException">There is none; the message lists those there are.</exception>
    public NbdFilterEntry Filter(string name)
        => _filters.TryGetValue(name, out NbdFilterEntry? entry) ? entry : throw Unknown("filter", name, Filters.Select(f => f.Name));

    /// <summary>
    /// Builds a chain as nbdkit's command line does: each parameter goes to the first layer, from the client inwards, that
    /// knows it.
    /// </summary>
    /// <param name="plugin">The plugin's name.</param>
    /// <param name="filters">The filters' names, the first nearest the client.</param>
    /// <param name="parameters">
    /// Names and values in the order given; an empty name is a bare argument, for the plugin's magic parameter.
    /// </param>
    /// <returns>The chain.</returns>
    /// <exception cref="ArgumentException">
    /// A name is unknown, a value is wrong, or a parameter is missing or repeated; the message says which.
    /// </exception>
    public NbdBackend Compose(
        string plugin, IReadOnlyList<string> filters, IEnumerable<KeyValuePair<string, string>> parameters)
    {
        NbdPluginEntry pluginEntry = Plugin(plugin);
        NbdFilterEntry[] filterEntries = [.. filters.Select(Filter)];
        List<KeyValuePair<string, string>>[] given = [.. filterEntries.Select(_ => new List<KeyValuePair<string, string>>()), []];
        foreach ((string key, string value) in parameters)
        {
            string name = key.Length > 0
                ? key
                : pluginEntry.MagicParameter ?? throw new ArgumentException($"{plugin}: the argument '{value}' is not of the form name=value.");
            int layer = Array.FindIndex(filterEntries, f => f.Parameters.Any(p => p.Name == name));
            if (layer < 0 && !pluginEntry.TakesOtherParameters && !pluginEntry.Parameters.Any(p => p.Name == name))
            {
                throw UnknownParameter(name, pluginEntry, filterEntries);
            }
            given[layer < 0 ? filterEntries.Length : layer].Add(new(name, value));
        }
        var layers = new INbdFilter[filterEntries.Length];
        for (int i = 0; i < layers.Length; i++)
        {
            layers[i] = filterEntries[i].Create(Checked(filterEntries[i].Name, filterEntries[i].Parameters, given[i]));
        }
        return NbdBackend.Compose(
            pluginEntry.Create(Checked(pluginEntry.Name, pluginEntry.Parameters, given[^1])), layers);
    }

    private static NbdParameters Checked(
        string owner, IReadOnlyList<NbdParameter> known, List<KeyValuePair<string, string>> given)
    {
        foreach (NbdParameter parameter in known)
        {
            int count = given.Count(pair => pair.Key == parameter.Name);
            if (count == 0 && parameter.IsRequired)
            {
                throw new ArgumentException($"{owner}: the parameter {parameter.Name}= is required ({parameter.Help}).");
            }
            if (count > 1 && !parameter.IsRepeatable)
            {
                throw new ArgumentException($"{owner}: the parameter {parameter.Name}= was given {count} times.");
            }
        }
        return new NbdParameters(owner, given);
    }

    private static ArgumentException Unknown(string kind, string name, IEnumerable<string> known)
        => new($"There is no {kind} named '{name}'. Known: {string.Join(", ", known)}.");

    private static ArgumentException UnknownParameter(string name, NbdPluginEntry plugin, NbdFilterEntry[] filters)
    {
        IEnumerable<string> known = filters.Select(f => (f.Name, f.Parameters)).Append((plugin.Name, plugin.Parameters))
            .Where(layer => layer.Parameters.Count > 0)
            .Select(layer => $"{layer.Name}: {string.Join(", ", layer.Parameters.Select(p => p.Name))}");
        return new ArgumentException($"Unknown parameter '{name}'. Known: {string.Join("; ", known)}.");
    }
}
