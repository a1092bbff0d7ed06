using System.Net;
using System.Net.Sockets;
using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

public sealed class KeepAliveTests
{
    [TestCase(false), TestCase(true)]
    public async Task Accepted_connections_are_probed_as_the_options_say(bool probed)
    {
        if (!OperatingSystem.IsLinux())
        {
            Assert.Ignore("What is set can be seen only in /proc.");
        }
        await using var server = new NbdServer(NbdBackend.Compose(new TestPlugin()), new NbdServerOptions
        {
            EndPoints = [new IPEndPoint(IPAddress.Loopback, 0)],
            KeepAlive = probed
                ? new NbdKeepAlive { Time = TimeSpan.FromSeconds(300.5), Interval = TimeSpan.FromSeconds(7), Retries = 3 }
                : null,
        });
        await server.StartAsync();
        int port = ((IPEndPoint)server.EndPoints[0]).Port;
        using var client = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await client.ConnectAsync(server.EndPoints[0]);
        await client.ReceiveAsync(new byte[18], SocketFlags.None);

        // The line of the server's end: state 01, and the timer as tr:when, where 02 is that of probes, in hundredths.
        string[] line = File.ReadLines("/proc/net/tcp").Select(text => text.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            .Single(words => words[1].EndsWith($":{port:X4}", StringComparison.Ordinal) && words[3] == "01");

        string[] timer = line[5].Split(':');
        Assert.That(timer[0], Is.EqualTo(probed ? "02" : "00"));
        if (probed)
        {
            Assert.That(Convert.ToInt32(timer[1], 16), Is.InRange(25_000, 30_100));
        }
    }

    [Test]
    [Property("Threat", "P37")]
    public void What_nobody_acknowledges_is_not_sent_for_longer_than_probes_are()
    {
        if (!OperatingSystem.IsLinux())
        {
            Assert.Ignore("Linux has TCP_USER_TIMEOUT.");
        }
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        Listener.KeepAlive(socket, new NbdKeepAlive { Time = TimeSpan.FromSeconds(5), Interval = TimeSpan.FromSeconds(2), Retries = 3 });
        byte[] set = new byte[4];
        Assert.That(socket.GetRawSocketOption(6, 18, set), Is.EqualTo(4));
        Assert.That(BitConverter.ToInt32(set), Is.EqualTo(11_000));
        Listener.KeepAlive(
            socket, new NbdKeepAlive { Time = TimeSpan.FromHours(9), Interval = TimeSpan.FromHours(9), Retries = 127 });
        socket.GetRawSocketOption(6, 18, set);
        Assert.That(BitConverter.ToInt32(set), Is.EqualTo(int.MaxValue));
    }

    [Test]
    public void Values_that_no_system_takes_are_refused()
    {
        Assert.That(() => new NbdKeepAlive { Time = TimeSpan.Zero }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new NbdKeepAlive { Interval = TimeSpan.FromDays(1) }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new NbdKeepAlive { Retries = 128 }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }
}
