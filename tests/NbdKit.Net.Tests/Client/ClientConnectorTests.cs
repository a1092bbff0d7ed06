using System.Net;
using System.Net.Sockets;
using NbdKit.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Client;

/// <summary>Connecting over sockets, to servers of our own.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class ClientConnectorTests
{
    [Test]
    public async Task An_export_is_opened_over_any_socket([Values] SocketKind socket)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new TestPlugin(new TestExport("disk") { Description = "a disk" })), socket);

        ClientSession session =
            await ClientConnector.ConnectAsync(new Uri(server.UriOf("disk")), new NbdClientOptions(), default).Soon();

        Assert.That(session.ExportName, Is.EqualTo("disk"));
        Assert.That(session.Description, Is.EqualTo("a disk"));
        Assert.That(session.MetaContexts.Values, Is.EqualTo(["base:allocation"]));
        await session.Transport.CloseAsync();
    }

    [Test]
    public async Task A_connected_socket_or_a_stream_will_do([Values] bool asStream)
    {
        await using ServerFixture server = await ServerFixture.StartAsync(new TestPlugin(new TestExport("")));
        using SocketPair pair = await SocketPair.CreateAsync(tcp: true);
        Task<NbdDisconnect> serving = server.Server.ServeAsync(pair.Server);

        await using NbdHandshake handshake = asStream
            ? await NbdHandshake.ConnectAsync(new NetworkStream(pair.Client, ownsSocket: true)).Soon()
            : await NbdHandshake.ConnectAsync(pair.Client).Soon();
        Assert.That((await handshake.ListAsync().Soon()).Select(e => e.Name), Is.EqualTo([""]));
        await handshake.DisposeAsync().Soon();

        Assert.That((await serving.Soon()).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
    }

    [Test]
    public void Nobody_at_home_is_said_so([Values("nbd://127.0.0.1:1/", "nbd+unix:///?socket=/nonexistent/s")] string uri)
    {
        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => NbdHandshake.ConnectAsync(uri).Soon())!;

        Assert.That(failure.Error, Is.EqualTo(NbdClientError.ConnectFailed));
        Assert.That(failure.InnerException, Is.InstanceOf<SocketException>());
    }

    [Test, Property("Rule", "C086")]
    public async Task A_server_that_never_greets_is_given_up_C086()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        listener.Listen();
        var time = new FakeTimeProvider();

        Task<NbdHandshake> connecting =
            NbdHandshake.ConnectAsync(listener.LocalEndPoint!, new NbdClientOptions { TimeProvider = time });
        await time.AdvanceUntilAsync(connecting);

        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => connecting)!.Error, Is.EqualTo(NbdClientError.Timeout));
    }

    [Test]
    public void What_is_cancelled_before_it_begins_does_not_begin([Values("nbd://127.0.0.1:1/", "nbd+unix:///?socket=/nonexistent/s")] string uri)
    {
        OperationCanceledException canceled = Assert.CatchAsync<OperationCanceledException>(
            () => NbdHandshake.ConnectAsync(uri, cancellationToken: new CancellationToken(canceled: true)).Soon())!;

        Assert.That(canceled.CancellationToken.IsCancellationRequested, Is.True);
    }

    [Test]
    public async Task What_a_URI_says_goes_before_the_options()
    {
        await using InteropServer server = await InteropServer.StartAsync(new TestPlugin(new TestExport("disk")));

        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(
            () => NbdHandshake.ConnectAsync(
                "nbds+unix:///disk?tls-hostname=h&socket=" + server.SocketPath, new NbdClientOptions { Tls = NbdTlsPolicy.Off }).Soon())!;
        Assert.That(failure.Error, Is.EqualTo(NbdClientError.TlsUnavailable));
        ClientSession session = await ClientConnector.ConnectAsync(
            new Uri(server.UriOf("disk")), new NbdClientOptions { ExportName = "other" }, default).Soon();
        Assert.That(session.ExportName, Is.EqualTo("disk"));
        await session.Transport.CloseAsync();
    }
}
