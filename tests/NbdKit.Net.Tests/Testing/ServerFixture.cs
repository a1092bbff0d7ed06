namespace NbdKit.Tests.Testing;

/// <summary>A running server without endpoints, to which tests connect clients in memory.</summary>
internal sealed class ServerFixture : IAsyncDisposable
{
    private readonly List<WireClient> _clients = [];

    private ServerFixture(TestPlugin plugin, NbdServerOptions options)
    {
        Plugin = plugin;
        Server = new NbdServer(NbdBackend.Compose(plugin), options with { LoggerFactory = Log });
    }

    public TestPlugin Plugin { get; }

    public NbdServer Server { get; }

    public RecordingLog Log { get; } = new();

    public static async Task<ServerFixture> StartAsync(TestPlugin? plugin = null, NbdServerOptions? options = null)
    {
        var fixture = new ServerFixture(plugin ?? new TestPlugin(), options ?? new NbdServerOptions());
        await fixture.Server.StartAsync();
        return fixture;
    }

    /// <summary>Connects a client that has read and sent nothing yet.</summary>
    public WireClient Connect(PipePair? pipes = null)
    {
        pipes ??= new PipePair();
        var client = new WireClient(pipes.Client, Server.ServeAsync(pipes.Server));
        _clients.Add(client);
        return client;
    }

    /// <summary>Connects a client that has answered the greeting.</summary>
    public async Task<WireClient> HaggleAsync(
        uint clientFlags = WireClient.FixedNewstyle | WireClient.NoZeroes, PipePair? pipes = null)
    {
        WireClient client = Connect(pipes);
        await client.GreetAsync(clientFlags);
        return client;
    }

    /// <summary>Connects a client that has entered transmission.</summary>
    public async Task<WireClient> TransmitAsync(
        string name = "", bool structured = false, bool meta = false, bool extended = false, PipePair? pipes = null)
    {
        WireClient client = await HaggleAsync(pipes: pipes);
        if (extended)
        {
            await client.ExtendedAsync();
        }
        else if (structured || meta)
        {
            await client.StructuredAsync();
        }
        if (meta)
        {
            OptionResult selected = await client.SetMetaAsync(name, "base:allocation");
            Assert.That(selected.Replies, Has.Count.EqualTo(2));
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
        await Server.DisposeAsync().AsTask().WaitAsync(WireClient.Deadline * 2);
    }
}
