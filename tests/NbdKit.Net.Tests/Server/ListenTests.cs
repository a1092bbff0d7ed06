using System.Net;
using System.Net.Sockets;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Whose an endpoint is, and what is left of a server that did not get its own.</summary>
[NonParallelizable]
public sealed class ListenTests
{
    [Test]
    public async Task A_port_is_one_servers_alone()
    {
        await using NbdServer first = Serve(0);
        await first.StartAsync();
        await using NbdServer second = Serve(((IPEndPoint)first.EndPoints[0]).Port);
        Assert.That(
            async () => await second.StartAsync(),
            Throws.InstanceOf<SocketException>().With.Property("SocketErrorCode").EqualTo(SocketError.AddressAlreadyInUse));
    }

    [Test]
    public async Task A_port_whose_server_has_just_stopped_can_be_had_again()
    {
        NbdServer first = Serve(0);
        await first.StartAsync();
        int port = ((IPEndPoint)first.EndPoints[0]).Port;
        using var client = new Socket(SocketType.Stream, ProtocolType.Tcp);
        await client.ConnectAsync(IPAddress.Loopback, port);
        Assert.That(await client.ReceiveAsync(new byte[18]), Is.EqualTo(18));
        // The server closes first, and so its end of the connection lingers.
        await first.DisposeAsync();
        await using NbdServer second = Serve(port);
        await second.StartAsync();
    }

    [Test]
    public async Task A_server_that_never_started_leaves_no_thread_behind()
    {
        if (!OperatingSystem.IsLinux())
        {
            Assert.Ignore("Sockets are watched by the runtime here.");
        }
        int before = IdleSocketThreads.Count;
        using var taken = new Socket(SocketType.Stream, ProtocolType.Tcp);
        taken.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        taken.Listen();
        NbdServer server = Serve(((IPEndPoint)taken.LocalEndPoint!).Port);
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        Assert.That(async () => await server.ServeAsync(sockets.Server), Throws.InstanceOf<SocketException>());
        await server.DisposeAsync();
        for (int i = 0; i < 100 && IdleSocketThreads.Count > before; i++)
        {
            await Task.Delay(20);
        }
        Assert.That(IdleSocketThreads.Count, Is.LessThanOrEqualTo(before));
    }

    private static NbdServer Serve(int port) => new(
        NbdBackend.Compose(new MemoryPlugin { Size = 4096 }),
        new NbdServerOptions { EndPoints = [new IPEndPoint(IPAddress.Loopback, port)] });
}
