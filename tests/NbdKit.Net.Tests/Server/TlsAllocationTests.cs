using System.Diagnostics;
using System.Net.Security;
using System.Net.Sockets;
using System.Reflection;
using NbdKit.Native;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Inside TLS a request allocates nothing in the steady state.</summary>
[NonParallelizable]
public sealed class TlsAllocationTests
{
    private const int Depth = 50;

    // What is left is the rest of the process: one object for each request would be 24 bytes at least.
    [TestCase("read", (ushort)0, 4096, 20_000, 16)]
    [TestCase("write", (ushort)1, 4096, 20_000, 16)]
    [TestCase("large read", (ushort)0, 256 << 10, 2_000, 16)]
    [TestCase("large write", (ushort)1, 256 << 10, 2_000, 16)]
    public async Task A_request_allocates_nothing(string name, ushort command, int length, int requests, int limit)
    {
        await using var server = new NbdServer(
            NbdBackend.Compose(new MemoryPlugin { Size = 64 << 20 }),
            new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) });
        using SocketPair sockets = await SocketPair.CreateAsync(tcp: false);
        var wire = new WireClient(sockets, server.ServeAsync(sockets.Server));
        await wire.GreetAsync();
        await wire.ExpectOptAsync(Rep.Ack, Opt.StartTls);
        await using var client = new SslStream(new NetworkStream(sockets.Client));
        await client.AuthenticateAsClientAsync(TestCertificates.Client());
        await client.WriteAsync(WireBytes.Option(Opt.Go, WireBytes.InfoRequest([])));
        await client.ReadExactlyAsync(new byte[20 + 12 + 20]);
        // The runtime's own calls allocate on a socket that was used asynchronously: the client must not be what is measured.
        Assume.That(OperatingSystem.IsLinux());
        LinuxSocket.MakeBlocking(sockets.Client.SafeHandle);
        var batch = new MemoryStream();
        for (int i = 0; i < Depth; i++)
        {
            batch.Write(WireBytes.Request(command, (ulong)i, (ulong)(i * length), (uint)length, 0));
            batch.Write(new byte[command == 1 ? length : 0]);
        }
        byte[] replies = new byte[Depth * (16 + (command == 0 ? length : 0))];

        Exchange(client, batch.ToArray(), replies, requests);
        long allocated = long.MaxValue;
        for (int round = 0; round < 3; round++)
        {
            long before = GC.GetTotalAllocatedBytes(precise: true);
            Exchange(client, batch.GetBuffer().AsSpan(0, (int)batch.Length), replies, requests);
            allocated = Math.Min(allocated, GC.GetTotalAllocatedBytes(precise: true) - before);
        }

        TestContext.Out.WriteLine($"{name}: {(double)allocated / requests:f2} bytes a request");
        bool optimized = typeof(NbdServer).Assembly.GetCustomAttribute<DebuggableAttribute>() is not { IsJITOptimizerDisabled: true };
        Assert.That((double)allocated / requests, Is.LessThan(optimized ? limit : limit + 5000), name);
    }

    // Blocking: what the client's stream would allocate to wait is not what is measured.
    private static void Exchange(SslStream client, ReadOnlySpan<byte> batch, byte[] replies, int requests)
    {
        for (int i = 0; i < requests; i += Depth)
        {
            client.Write(batch);
            client.ReadExactly(replies);
        }
    }
}
