using System.Buffers.Binary;
using System.Net.Sockets;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>
/// The transmission phase alone with other programs: the handshake is the test's, and is the oldstyle one, which is one message.
/// </summary>
[Parallelizable(ParallelScope.All)]
public sealed class OwnHandshakeTests
{
    private const TransmissionFlags Few = TransmissionFlags.HasFlags | TransmissionFlags.SendFlush | TransmissionFlags.SendTrim;

    [Test]
    public async Task Libnbd_and_QEMU_are_told_by_the_host_and_served([Values("nbdcopy", "qemu-io")] string program)
    {
        Peer.Require(program);
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(2 << 20, seed: 3);
        string source = folder.Write("source", content);
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 3 << 20 });
        await using var server = new NbdServer(chain);
        using var listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(new UnixDomainSocketEndPoint(folder["s"]));
        listener.Listen();
        var ends = new List<Task<NbdDisconnect>>();
        Task accepting = AcceptAsync();

        string uri = $"nbd+unix:///?socket={folder["s"]}";
        if (program == "nbdcopy")
        {
            Assert.That(await Peer.OutputAsync("nbdinfo", "--size", uri), Is.EqualTo($"{content.Length}\n"));
            await Peer.OutputAsync("nbdcopy", source, uri);
            await Peer.OutputAsync("nbdcopy", uri, folder["back"]);
            Assert.That(File.ReadAllBytes(folder["back"]).AsSpan().SequenceEqual(content));
        }
        else
        {
            await Peer.OutputAsync("qemu-io", "-f", "raw", "-c", "write -P 0x5a 512 1M", "-c", "read -P 0x5a 512 1M", "-c", "flush", uri);
            await using NextContext disk = await chain.OpenAsync(readOnly: true);
            Assert.That(await TestData.ReadAsync(disk, 512, 1 << 20), Is.All.EqualTo((byte)0x5a));
        }
        await server.StopAsync();
        listener.Dispose();
        await accepting.WaitAsync(Peer.Deadline);
        Assert.That(
            (await Task.WhenAll(ends)).Select(end => end.Reason),
            Is.Not.Empty.And.All.AnyOf(NbdDisconnectReason.ClientDone, NbdDisconnectReason.ClientGone));

        async Task AcceptAsync()
        {
            try
            {
                while (true)
                {
                    Socket client = await listener.AcceptAsync();
                    ends.Add(server.ServeTransmissionAsync(client, new NbdTransmission
                    {
                        Size = content.Length,
                        Flags = Few,
                        Opened = async (told, _, cancellationToken) =>
                        {
                            await client.SendAsync(Greeting(told), cancellationToken);
                            return told;
                        },
                    }));
                }
            }
            catch (SocketException)
            {
                // The listener was closed.
            }
            catch (ObjectDisposedException)
            {
                // As above.
            }
        }
    }

    [Test]
    public async Task An_oldstyle_nbdkit_is_used_after_its_greeting([Values] SocketKind socket)
    {
        await using PeerServer server = await PeerServer.NbdkitAsync(socket, "-o", "memory", "1M");
        using Socket connection = socket == SocketKind.Unix
            ? new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
            : new Socket(SocketType.Stream, ProtocolType.Tcp);
        await connection.ConnectAsync(
            socket == SocketKind.Unix
                ? new UnixDomainSocketEndPoint(server.Socket)
                : new System.Net.IPEndPoint(System.Net.IPAddress.Loopback, server.Port));
        byte[] greeting = new byte[152];
        for (int have = 0; have < greeting.Length;)
        {
            int received = await connection.ReceiveAsync(greeting.AsMemory(have));
            Assert.That(received, Is.Positive);
            have += received;
        }
        await using NbdClient client = NbdClient.BeginTransmission(connection, new NbdTransmission
        {
            Size = BinaryPrimitives.ReadInt64BigEndian(greeting.AsSpan(16)),
            Flags = (TransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(greeting.AsSpan(26)),
        });

        Assert.That((client.Info.Size, client.Info.CanWrite, client.HasStructuredReplies), Is.EqualTo((1 << 20, true, false)));
        byte[] written = TestData.Random(300_001, seed: 4);
        byte[] read = new byte[written.Length];
        await client.WriteAsync(written, 77, RequestFlags.None);
        await client.ReadAsync(read, 77);
        Assert.That(read.AsSpan().SequenceEqual(written));
        await client.DisconnectAsync();
    }

    // NBDMAGIC 64, oldstyle magic 64, size 64, handshake flags 16, transmission flags 16, 124 bytes of zero.
    private static byte[] Greeting(NbdTransmission told)
        => new WireBytes().U64(Magic.Nbd).U64(0x0000_4202_8186_1253).U64((ulong)told.Size!.Value).U16(0)
            .U16((ushort)told.Flags!.Value).Zeroes(124).ToArray();
}
