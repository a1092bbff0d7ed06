namespace NbdKit.Tests.Interop;

/// <summary>Several exports, each of its own size and filled with a byte of its own. There is no default export.</summary>
internal sealed class ExportsPlugin : INbdPlugin
{
    /// <summary>The exports and their sizes.</summary>
    public static readonly IReadOnlyDictionary<string, long> Sizes = new SortedDictionary<string, long>(StringComparer.Ordinal)
    {
        ["a disk/with a path"] = 1 << 20,
        ["disk"] = 512,
        ["größer"] = 1_000_001,
    };

    public static IEnumerable<string> Names => Sizes.Keys;

    public string Name => "exports";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    public ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        foreach (string name in Names)
        {
            exports.Add(name, $"the disk {name}");
        }
        return default;
    }

    public ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken) => new((string?)null);

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => Sizes.TryGetValue(context.ExportName, out long size)
            ? new(new Handle(context.ExportName, size))
            : throw new NbdException(NbdError.InvalidArgument, "there is no disk of this name");

    private sealed class Handle(string name, long size) : INbdPluginHandle
    {
        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
            => new(new NbdExportInfo { Size = size, Description = $"the disk {name}" });

        public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        {
            buffer.Span.Fill((byte)name.Length);
            return default;
        }
    }
}
