using System.Net.Sockets;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Client;

/// <summary>Ends of connections over streams that do not like to be ended.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientEndingTests
{
    [Test]
    public async Task A_TLS_session_over_a_socket_that_is_gone_closes_without_a_complaint()
    {
        await using var server = new NbdServer(
            NbdBackend.Compose(new MemoryPlugin { Size = 512 }), new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) });
        var pipes = new PipePair();
        Task served = server.ServeAsync(new DuplexPipeStream(pipes.Server));
        // The last that is written is close_notify, when the server has left.
        var stream = new SulkingStream(new DuplexPipeStream(pipes.Client))
        {
            EndFault = new SocketException((int)SocketError.ConnectionReset),
        };
        NbdClient client = await NbdClient.ConnectAsync(stream, new NbdClientOptions
        {
            Tls = NbdTlsPolicy.Require,
            TlsAuthentication = TestCertificates.Client(),
        });
        await client.DisposeAsync().Soon();

        Assert.That(client.IsConnected, Is.False);
        await served.Soon();
    }

    [Test]
    public async Task Whoever_made_time_go_on_does_not_hear_of_a_stream_that_throws()
    {
        var time = new FakeTimeProvider();
        var stream = new SulkingStream(new DuplexPipeStream(new PipePair().Client));
        var options = new NbdClientOptions { RequestTimeout = TimeSpan.FromSeconds(7), TimeProvider = time };
        NbdClient client = NbdClient.BeginTransmission(stream, new NbdTransmission { Size = 1 << 20, Flags = TransmissionFlags.HasFlags }, options);
        stream.HangsWriting = true;
        stream.DisposeFault = new InvalidDataException("no");
        Task writing = client.WriteAsync(new byte[100_000], 0).AsTask();

        Assert.That(() => time.Advance(TimeSpan.FromSeconds(8)), Throws.Nothing);

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => writing.Soon())!.Error, Is.EqualTo(NbdClientError.Timeout));
        Assert.That(client.IsConnected, Is.False);
    }

    /// <summary>The last piece begins less than a piece below 2^31.</summary>
    [Test]
    public async Task A_buffer_of_nearly_2_GiB_is_read_to_its_end()
    {
        var plugin = new DelegatePlugin
        {
            Size = 1L << 32,
            Read = (_, _, _) => throw new NbdException(NbdError.IoError, "nothing is filled in"),
        };
        await using NbdServer server = new(NbdBackend.Compose(plugin));
        var pipes = new PipePair();
        Task served = server.ServeAsync(pipes.Server);
        await using (NbdClient client = await NbdClient.ConnectAsync(pipes.Client))
        {
            // Never touched, so that it takes addresses and no memory.
            byte[] buffer = GC.AllocateUninitializedArray<byte>(Array.MaxLength);
            Task reading = client.ReadAsync(buffer, 0).AsTask();

            Assert.That(
                Assert.CatchAsync<NbdException>(() => reading.WaitAsync(Peer.Deadline))!.Error, Is.EqualTo(NbdError.IoError));
        }
        await served.Soon();
    }
}
