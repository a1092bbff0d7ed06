namespace NbdKit.Tests.Testing;

/// <summary>
/// A test of the server at the raw wire. Whatever a test did, each of its servers must stop, close every context that it
/// opened, and not have failed by itself.
/// </summary>
public abstract class WireTest
{
    private readonly List<ServerFixture> _servers = [];

    [TearDown]
    public async Task Stop_and_balance()
    {
        ServerFixture[] servers = [.. _servers];
        _servers.Clear();
        foreach (ServerFixture server in servers)
        {
            await server.DisposeAsync();
            Assert.That(server.Plugin.Closed, Is.EqualTo(server.Plugin.Opened), "contexts closed and opened");
            Assert.That(server.Server.Connections, Is.Empty);
        }
    }

    private protected async Task<ServerFixture> ServeAsync(TestPlugin? plugin = null, NbdServerOptions? options = null)
    {
        ServerFixture server = await ServerFixture.StartAsync(plugin, options);
        _servers.Add(server);
        return server;
    }

    private protected Task<ServerFixture> ServeAsync(TestExport export, NbdServerOptions? options = null)
        => ServeAsync(new TestPlugin(export), options);
}
