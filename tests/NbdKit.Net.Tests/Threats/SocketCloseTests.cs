using System.Globalization;
using System.Net;
using System.Net.Sockets;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>Connections over TCP that end badly.</summary>
public sealed class SocketCloseTests
{
    private const int Rounds = 1000;
    private const int ReplySize = 1 << 20;
    private const int Bystanders = 8;

    // 10,000 in the long form.
    private static readonly int Resets = int.Parse(
        Environment.GetEnvironmentVariable("NBDKIT_NET_RESETS") ?? "1000", CultureInfo.InvariantCulture);

    [Test, Property("Threat", "N20")]
    public async Task The_last_reply_arrives_although_much_was_sent_that_nobody_read()
    {
        await using NbdServer server = await StartAsync(new TestPlugin());
        byte[] sent = [.. new WireBytes().U32(3).ToArray(), .. WireBytes.Option(0x77, [1]), .. new byte[100_000]];
        for (int round = 0; round < Rounds; round++)
        {
            using Socket socket = await ConnectAsync(server);
            await socket.SendAsync(sent.AsMemory());
            var got = new MemoryStream();
            byte[] buffer = new byte[1000];
            try
            {
                for (int n; (n = await socket.ReceiveAsync(buffer.AsMemory()).Soon()) > 0;)
                {
                    got.Write(buffer, 0, n);
                }
            }
            catch (SocketException)
            {
                // A reset after the reply is as good as an end.
            }
            Assert.That(got.Length, Is.GreaterThan(18 + 20), $"round {round}: the answer to the option was lost");
        }
    }

    [Test, Property("Threat", "CVE-2017-10664"), Property("Threat", "nbdkit-9d82aa4f")]
    public async Task A_reset_while_a_reply_is_sent_hurts_nobody_and_sends_nobody_the_bytes_of_another()
    {
        var plugin = new TestPlugin(new TestExport(size: ReplySize));
        await using NbdServer server = await StartAsync(plugin);
        using var stop = new CancellationTokenSource();
        Task<int>[] bystanders = [.. Enumerable.Range(0, Bystanders).Select(i => ReadUntilAsync(server, plugin.Data, i, stop.Token))];
        for (int round = 0; round < Resets; round++)
        {
            using Socket socket = await ConnectAsync(server);
            socket.LingerState = new LingerOption(true, 0);
            byte[] requests = [.. new WireBytes().U32(3).ToArray(), .. WireBytes.Option(Opt.Go, WireBytes.InfoRequest([])),
                .. Enumerable.Range(0, 64).SelectMany(i => WireBytes.Request(Cmd.Read, (ulong)i, 0, ReplySize))];
            await socket.SendAsync(requests.AsMemory());
            byte[] some = new byte[1000 + (round * 1000 % 200_000)];
            await socket.ReceiveAsync(some.AsMemory()).Soon();
            socket.Close();
            Assert.That(bystanders.Where(bystander => bystander.IsCompleted), Is.Empty);
        }
        await stop.CancelAsync();
        Assert.That(await Task.WhenAll(bystanders).Soon(), Has.All.GreaterThan(0));
    }

    /// <summary>Reads all the while, and compares.</summary>
    private static async Task<int> ReadUntilAsync(NbdServer server, byte[] content, int seed, CancellationToken stop)
    {
        var random = new Random(seed);
        await using NbdClient client = await NbdClient.ConnectAsync(server.EndPoints[0], cancellationToken: CancellationToken.None);
        byte[] buffer = new byte[64 << 10];
        int count = 0;
        for (; !stop.IsCancellationRequested; count++)
        {
            int at = random.Next(content.Length - buffer.Length);
            await client.ReadAsync(buffer, at, CancellationToken.None);
            Assert.That(buffer.AsSpan().SequenceEqual(content.AsSpan(at, buffer.Length)), $"at {at}, seed {seed}");
        }
        return count;
    }

    private static async Task<NbdServer> StartAsync(TestPlugin plugin)
    {
        var server = new NbdServer(
            NbdBackend.Compose(plugin), new NbdServerOptions { EndPoints = [new IPEndPoint(IPAddress.Loopback, 0)] });
        await server.StartAsync();
        return server;
    }

    private static async Task<Socket> ConnectAsync(NbdServer server)
    {
        var socket = new Socket(SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync(server.EndPoints[0]).Soon();
        return socket;
    }
}
