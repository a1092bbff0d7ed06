namespace NbdKit.Tests.Testing;

/// <summary>A model disk as one side of a copy, opened as often as wanted.</summary>
internal sealed class CopyDisk : IAsyncDisposable
{
    private readonly NbdBackend _backend;

    private CopyDisk(ModelPlugin plugin, NbdBackend backend, IReadOnlyList<NextContext> contexts)
    {
        Plugin = plugin;
        _backend = backend;
        Contexts = contexts;
    }

    public ModelPlugin Plugin { get; }

    public IReadOnlyList<NextContext> Contexts { get; }

    public NbdCopySource Source => NbdCopySource.From(Contexts);

    public NbdCopyDestination Destination => NbdCopyDestination.To(Contexts);

    public static Task<CopyDisk> OpenAsync(byte[] content, params INbdFilter[] filters)
        => OpenAsync(new ModelPlugin(content), 1, filters);

    public static async Task<CopyDisk> OpenAsync(ModelPlugin plugin, int connections = 1, params INbdFilter[] filters)
    {
        NbdBackend backend = NbdBackend.Compose(plugin, filters);
        var contexts = new List<NextContext>();
        for (int i = 0; i < connections; i++)
        {
            contexts.Add(await backend.OpenAsync());
        }
        return new CopyDisk(plugin, backend, contexts);
    }

    public async ValueTask DisposeAsync()
    {
        foreach (NextContext context in Contexts)
        {
            await context.DisposeAsync();
        }
        await _backend.DisposeAsync();
    }
}
