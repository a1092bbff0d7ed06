namespace NbdKit.Tests.Testing;

/// <summary>A running server of any chain, without endpoints, to which tests connect clients in memory.</summary>
internal sealed class ChainServer : IAsyncDisposable
{
    private readonly List<WireClient> _clients = [];

    private ChainServer(NbdBackend chain, NbdServerOptions options)
        => Server = new NbdServer(chain, options with { LoggerFactory = Log });

    public NbdServer Server { get; }

    public RecordingLog Log { get; } = new();

    /// <summary>The texts of the log, from warnings upwards.</summary>
    public IReadOnlyList<string> Warnings
        => [.. Log.Entries.Where(e => e.Level >= Microsoft.Extensions.Logging.LogLevel.Warning).Select(e => e.Text)];

    public static async Task<ChainServer> StartAsync(NbdBackend chain, NbdServerOptions? options = null)
    {
        var server = new ChainServer(chain, options ?? new NbdServerOptions());
        await server.Server.StartAsync();
        return server;
    }

    /// <summary>Connects a client that has read and sent nothing yet.</summary>
    public WireClient Connect(CancellationToken cut = default, PipePair? pipes = null)
    {
        pipes ??= new PipePair();
        var client = new WireClient(pipes.Client, Server.ServeAsync(pipes.Server, cut));
        _clients.Add(client);
        return client;
    }

    /// <summary>Connects a client that has answered the greeting.</summary>
    public async Task<WireClient> HaggleAsync()
    {
        WireClient client = Connect();
        await client.GreetAsync();
        return client;
    }

    /// <summary>Connects a client that has entered transmission.</summary>
    public async Task<WireClient> TransmitAsync(string name = "disk", bool structured = false)
    {
        WireClient client = await HaggleAsync();
        if (structured)
        {
            await client.StructuredAsync();
        }
        await client.GoAsync(name);
        return client;
    }

    public async ValueTask DisposeAsync()
    {
        foreach (WireClient client in _clients)
        {
            await client.DisposeAsync();
        }
        await Server.DisposeAsync().Soon();
    }
}
