using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>Servers that start and stop while clients come, go and stay silent.</summary>
public sealed class LifecycleRaceTests
{
    private const int Seed = 7409;
    private const int HalfOpenRounds = 100;
    private const int HalfOpenClients = 20;
    private const int ConnectRounds = 50;
    private const int ClientsAtOnce = 100;
    private const int RoundsPerOrder = 200;

    private static readonly NbdServerOptions Quick = new() { StopTimeout = TimeSpan.FromMilliseconds(20) };

    [Test, Property("Threat", "CVE-2024-7409")]
    public async Task A_stop_ends_clients_that_are_half_way_through_the_handshake()
    {
        TestContext.Out.WriteLine($"seed {Seed}");
        var random = new Random(Seed);
        byte[] session =
        [
            .. new WireBytes().U32(3).ToArray(),
            .. WireBytes.Option(Opt.StructuredReply, []),
            .. WireBytes.Option(Opt.SetMeta, WireBytes.MetaRequest([], "base:allocation")),
            .. WireBytes.Option(Opt.Go, WireBytes.InfoRequest([])),
        ];
        for (int round = 0; round < HalfOpenRounds; round++)
        {
            var plugin = new TestPlugin();
            var server = new NbdServer(NbdBackend.Compose(plugin), Quick);
            await server.StartAsync();
            var clients = new List<WireClient>();
            for (int i = 0; i < HalfOpenClients; i++)
            {
                WireClient client = Connect(server);
                await client.SendAsync(session.AsMemory(0, random.Next(session.Length + 1)));
                clients.Add(client);
            }

            await server.StopAsync().Soon();

            foreach (WireClient client in clients)
            {
                await client.ExpectEndAsync();
                _ = await client.ReadToEndAsync();
                await client.DisposeAsync();
            }
            Assert.That(server.Connections, Is.Empty);
            Assert.That(plugin.Closed, Is.EqualTo(plugin.Opened), $"seed {Seed}, round {round}");
        }
    }

    [Test, Property("Threat", "CVE-2015-0847"), Property("Threat", "CVE-2017-9524")]
    public async Task Clients_that_come_and_go_while_the_server_starts_and_stops_never_hang_it()
    {
        for (int round = 0; round < ConnectRounds; round++)
        {
            var plugin = new TestPlugin();
            var server = new NbdServer(NbdBackend.Compose(plugin), Quick with { MaxConnections = ClientsAtOnce });
            Task starting = Task.Run(async () => await server.StartAsync());
            Task[] clients = [.. Enumerable.Range(0, ClientsAtOnce).Select(i => Task.Run(() => ComeAndGoAsync(server, i)))];
            await starting.Soon();
            if (round % 2 == 0)
            {
                await Task.WhenAll(clients).Soon();
                await server.StopAsync().Soon();
            }
            else
            {
                await Task.WhenAll([.. clients, server.StopAsync(), server.StopAsync()]).Soon();
            }
            Assert.That(server.Connections, Is.Empty);
            Assert.That(plugin.Closed, Is.EqualTo(plugin.Opened), $"round {round}");
        }
    }

    [Test, Property("Threat", "CVE-2017-9524"), Property("Threat", "P03")]
    public async Task Clients_that_say_nothing_delay_nobody()
    {
        var plugin = new TestPlugin();
        await using var server = new NbdServer(NbdBackend.Compose(plugin), Quick);
        await server.StartAsync();
        WireClient[] silent = [.. Enumerable.Range(0, ClientsAtOnce - 1).Select(_ => Connect(server))];
        WireClient client = Connect(server);
        await client.GreetAsync();
        await client.GoAsync();
        await client.ExpectAliveAsync(plugin.Data);
        foreach (WireClient other in silent)
        {
            await other.CutAsync();
        }
        await client.DisposeAsync();
    }

    [Test, Property("Threat", "N16")]
    public async Task Start_stop_and_dispose_may_come_in_any_order_and_at_once(
        [Values("stop", "dispose dispose", "start dispose stop", "start stop dispose dispose", "stop start", "start+stop+dispose")]
        string order)
    {
        for (int round = 0; round < RoundsPerOrder; round++)
        {
            var plugin = new TestPlugin();
            var server = new NbdServer(NbdBackend.Compose(plugin), Quick);
            if (order.Contains('+'))
            {
                await Task.WhenAll(order.Split('+').Select(step => Task.Run(() => StepAsync(server, step)))).Soon();
            }
            else
            {
                foreach (string step in order.Split(' '))
                {
                    await StepAsync(server, step).Soon();
                }
            }
            await server.DisposeAsync().Soon();
            Assert.That(server.Stopped.IsCompleted, Is.True, $"round {round}");
            Assert.That(server.Connections, Is.Empty);
        }
    }

    private static async Task StepAsync(NbdServer server, string step)
    {
        switch (step)
        {
            case "start":
                try
                {
                    await server.StartAsync();
                }
                catch (ObjectDisposedException)
                {
                    // It was stopped before.
                }
                break;
            case "stop":
                await server.StopAsync();
                break;
            default:
                await server.DisposeAsync();
                break;
        }
    }

    private static async Task ComeAndGoAsync(NbdServer server, int i)
    {
        try
        {
            WireClient client = Connect(server);
            if (i % 3 > 0)
            {
                await client.GreetAsync();
            }
            if (i % 3 > 1)
            {
                // A server that stops meanwhile says no.
                await client.TryGoAsync();
            }
            await client.CutAsync();
            await client.ExpectEndAsync();
        }
        catch (Exception e) when (e is EndOfStreamException or ObjectDisposedException)
        {
            // The server had stopped.
        }
    }

    private static WireClient Connect(NbdServer server)
    {
        var pipes = new PipePair();
        return new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
    }
}
