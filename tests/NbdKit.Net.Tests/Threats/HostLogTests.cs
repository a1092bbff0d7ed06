using Microsoft.Extensions.Logging;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>A host's log that fails hurts neither clients nor the accepting of them.</summary>
public sealed class HostLogTests
{
    private const int Clients = 20;

    [Test, Property("Threat", "N18")]
    public async Task A_log_that_always_throws_changes_nothing()
    {
        var plugin = new TestPlugin(new TestExport("disk"));
        int ended = 0;
        await using var server = new NbdServer(NbdBackend.Compose(plugin), new NbdServerOptions
        {
            LoggerFactory = new BrokenLog(),
            MaxConnections = Clients,
            Disconnected = (_, _) => Interlocked.Increment(ref ended),
        });
        await server.StartAsync();
        var clients = new List<WireClient>();
        for (int i = 0; i < Clients; i++)
        {
            WireClient client = Connect(server);
            await client.GreetAsync();
            await client.ExpectOptAsync(Rep.Unknown, Opt.Info, WireBytes.InfoRequest("missing"u8));
            await client.GoAsync("disk");
            plugin.Export.Before = _ => throw new InvalidOperationException("a request that is logged");
            await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, 512);
            plugin.Export.Before = null;
            await client.ExpectAliveAsync(plugin.Data);
            clients.Add(client);
        }
        WireClient tooMany = Connect(server);
        await tooMany.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        foreach (WireClient client in clients)
        {
            await client.SendRequestAsync(Cmd.Disc);
            await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        }
        await server.StopAsync().Soon();
        Assert.That((plugin.Opened, plugin.Closed, ended), Is.EqualTo((Clients, Clients, Clients)));
    }

    private static WireClient Connect(NbdServer server)
    {
        var pipes = new PipePair();
        return new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
    }

    private sealed class BrokenLog : ILoggerFactory, ILogger
    {
        public void AddProvider(ILoggerProvider provider)
        {
        }

        public ILogger CreateLogger(string categoryName) => this;

        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull => throw new IOException("The log is full.");

        public bool IsEnabled(LogLevel logLevel) => logLevel < LogLevel.Warning ? true : throw new IOException("The log is full.");

        public void Log<TState>(
            LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
            => throw new IOException("The log is full.");

        public void Dispose()
        {
        }
    }
}
