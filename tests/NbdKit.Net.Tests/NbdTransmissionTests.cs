using System.Net.Security;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Our client and our server, both without a handshake of NBD's.</summary>
public sealed class NbdTransmissionTests
{
    private static readonly NbdTransmission Told = new()
    {
        ExportName = "disk",
        Size = 64 << 10,
        Flags = TransmissionFlags.SendFlush | TransmissionFlags.SendWriteZeroes,
        StructuredReplies = true,
        MetaContexts = [ExtentList.BaseAllocation],
    };

    private static NbdServer Server(NbdServerOptions? options = null)
        => new(NbdBackend.Compose(new TestPlugin(new TestExport("disk"))), options);

    private static async Task UseAsync(NbdClient client, Task<NbdDisconnect> served, bool extents)
    {
        byte[] data = new byte[4096];
        await client.ReadAsync(data, 512);
        Assert.That(data, Is.EqualTo(TestExport.Pattern(64 << 10)[512..4608]));
        await client.WriteAsync(data, 0);
        await client.FlushAsync();
        Assert.That(async () => await client.TrimAsync(0, 512), Throws.TypeOf<NbdException>());
        if (extents)
        {
            var list = new ExtentList(0, 64 << 10);
            await client.ExtentsAsync(0, 64 << 10, RequestFlags.None, list);
            Assert.That(list.Covered, Is.EqualTo(64 << 10));
        }
        await client.DisposeAsync();
        Assert.That((await served.WaitAsync(WireClient.Deadline)).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
    }

    [TestCase("simple"), TestCase("structured"), TestCase("extended")]
    public async Task Client_and_server_meet_without_a_handshake(string form)
    {
        NbdTransmission told = Told with
        {
            StructuredReplies = form == "structured",
            ExtendedHeaders = form == "extended",
            MetaContexts = form == "simple" ? [] : [ExtentList.BaseAllocation],
        };
        await using NbdServer server = Server();
        var pipes = new PipePair();
        Task<NbdDisconnect> served = server.ServeTransmissionAsync(pipes.Server, told);
        NbdClient client = NbdClient.BeginTransmission(pipes.Client, told);

        Assert.That(client.ExportName, Is.EqualTo("disk"));
        Assert.That(client.Info.Size, Is.EqualTo(64 << 10));
        Assert.That((client.Info.CanFlush, client.Info.CanTrim, client.IsTls), Is.EqualTo((true, false, false)));
        Assert.That((client.HasStructuredReplies, client.HasExtendedHeaders), Is.EqualTo((form != "simple", form == "extended")));
        await UseAsync(client, served, extents: form != "simple");
    }

    [Test]
    public async Task They_meet_over_a_socket([Values] bool tcp)
    {
        await using NbdServer server = Server();
        using SocketPair sockets = await SocketPair.CreateAsync(tcp);
        Task<NbdDisconnect> served = server.ServeTransmissionAsync(sockets.Server, Told);
        await UseAsync(NbdClient.BeginTransmission(sockets.Client, Told), served, extents: true);
    }

    [Test]
    public async Task They_meet_inside_the_TLS_of_their_hosts()
    {
        await using NbdServer server = Server(
            new NbdServerOptions { Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = true } });
        var pipes = new PipePair();
        var serverSide = new SslStream(new DuplexPipeStream(pipes.Server));
        var clientSide = new SslStream(new DuplexPipeStream(pipes.Client));
        Assert.That(() => NbdClient.BeginTransmission(clientSide, Told), Throws.ArgumentException);
        await Task.WhenAll(
            serverSide.AuthenticateAsServerAsync(TestCertificates.Server),
            clientSide.AuthenticateAsClientAsync(TestCertificates.Client())).WaitAsync(WireClient.Deadline);
        Task<NbdDisconnect> served = server.ServeTransmissionAsync(serverSide, Told);
        NbdClient client = NbdClient.BeginTransmission(clientSide, Told, new NbdClientOptions { Tls = NbdTlsPolicy.Require });

        Assert.That(client.IsTls);
        await UseAsync(client, served, extents: true);
    }

    [Test]
    public void A_client_without_TLS_is_refused_where_that_is_required()
        => Assert.That(
            () => NbdClient.BeginTransmission(new PipePair().Client, Told, new NbdClientOptions { Tls = NbdTlsPolicy.Require }),
            Throws.TypeOf<NbdClientException>().With.Property(nameof(NbdClientException.Error)).EqualTo(NbdClientError.TlsUnavailable));

    [Test]
    public void A_client_needs_a_size_and_flags_and_contexts_need_structured_replies()
    {
        Assert.That(Begin(Told with { Size = null }), Throws.ArgumentException.With.Message.Contains("size and the flags"));
        Assert.That(Begin(Told with { Flags = null }), Throws.ArgumentException.With.Message.Contains("size and the flags"));
        Assert.That(Begin(Told with { StructuredReplies = false }), Throws.ArgumentException.With.Message.Contains("base:allocation"));

        static Action Begin(NbdTransmission told) => () => NbdClient.BeginTransmission(new PipePair().Client, told);
    }

    [Test]
    public void Values_that_make_no_sense_are_refused_where_they_are_set()
    {
        Assert.That(() => new NbdTransmission { Size = -1 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new NbdTransmission { ExportName = "a\0b" }, Throws.ArgumentException);
        Assert.That(() => new NbdTransmission { MetaContexts = ["a:b", "a:b"] }, Throws.ArgumentException);
    }
}
