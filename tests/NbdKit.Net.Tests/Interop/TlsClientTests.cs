using System.Net;
using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using System.Text;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tool.Info;

namespace NbdKit.Tests.Interop;

/// <summary>Our client, its proxy plugin, the copy engine and <c>info</c>, with the TLS of our server.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class TlsClientTests
{
    private static readonly NbdServerTls Verified = new(TestCertificates.Server)
    {
        ClientCertificates = NbdClientCertificates.Required,
        ClientAuthorities = TestCertificates.Authorities,
    };

    private static readonly NbdServerTls Selective = new(TestCertificates.Server)
    {
        IsRequired = false,
        AllowsPlainText = name => name == "disk",
    };

    private static readonly NbdClientOptions FromUri = new() { AllowLocalFilesInUris = true };

    private static NbdClientOptions Encrypting(X509Certificate2? certificate = null, string host = "localhost")
    {
        SslClientAuthenticationOptions authentication = TestCertificates.Client(certificate);
        authentication.TargetHost = host;
        return new() { Tls = NbdTlsPolicy.Require, TlsAuthentication = authentication };
    }

    private static Task<InteropServer> StartAsync(
        INbdPlugin plugin, SocketKind socket, NbdServerTls tls, bool lenient = false)
        => InteropServer.StartAsync(NbdBackend.Compose(plugin), socket, new NbdServerOptions { Tls = tls }, lenient);

    private static EndPoint AddressOf(InteropServer server) => server.Server.EndPoints[0];

    /// <summary>The URI of a server, as somebody with a directory of certificates writes it.</summary>
    private static string UriOf(InteropServer server, SocketKind socket, string pki, string export = "")
    {
        string uri = "nbds" + server.UriOf(export)[3..];
        return $"{uri}{(socket == SocketKind.Unix ? '&' : '?')}tls-certificates={pki}&tls-hostname=localhost";
    }

    private static async Task RoundTripAsync(NbdClient client, int seed)
    {
        byte[] written = TestData.Random((3 << 20) + 77, seed);
        byte[] read = new byte[written.Length];
        await client.WriteAsync(written, 99, RequestFlags.None);
        await client.FlushAsync();
        await client.ReadAsync(read, 99);
        Assert.That(read.AsSpan().SequenceEqual(written));
    }

    private static NbdClientError ErrorOf(Func<Task> connect)
        => Assert.ThrowsAsync<NbdClientException>(connect)!.Error;

    [Test]
    public async Task A_URI_with_certificates_opens_what_is_served_to_known_clients([Values] SocketKind socket)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path, TestCertificates.Alice);
        await using InteropServer server = await StartAsync(new MemoryPlugin { Size = 8 << 20 }, socket, Verified);
        await using NbdClient client = await NbdClient.ConnectAsync(UriOf(server, socket, folder.Path), FromUri);

        Assert.That(client.IsTls);
        Assert.That(client.HasExtendedHeaders, "what is negotiated is negotiated inside");
        Assert.That(server.Server.Connections.Single().PeerSubject, Does.StartWith("CN=alice"));
        await RoundTripAsync(client, seed: 7);
    }

    [Test]
    public async Task A_stream_is_encrypted_too()
    {
        await using var server = new NbdServer(
            NbdBackend.Compose(new MemoryPlugin { Size = 8 << 20 }), new NbdServerOptions { Tls = Verified });
        var pipes = new PipePair();
        Task<NbdDisconnect> served = server.ServeAsync(new DuplexPipeStream(pipes.Server));
        await using (NbdClient client = await NbdClient.ConnectAsync(
            new DuplexPipeStream(pipes.Client), Encrypting(TestCertificates.Alice)))
        {
            Assert.That(client.IsTls);
            await RoundTripAsync(client, seed: 8);
        }
        Assert.That((await served.WaitAsync(Peer.Deadline)).Reason, Is.EqualTo(NbdDisconnectReason.ClientDone));
    }

    [Test]
    public async Task Whoever_is_not_known_or_does_not_know_the_server_gets_nothing([Values] SocketKind socket)
    {
        await using InteropServer server = await StartAsync(new MemoryPlugin { Size = 512 }, socket, Verified, lenient: true);

        foreach (X509Certificate2? certificate in new[] { null, TestCertificates.Mallory, TestCertificates.Expired })
        {
            Assert.That(
                ErrorOf(() => NbdClient.ConnectAsync(AddressOf(server), Encrypting(certificate))),
                Is.EqualTo(NbdClientError.TlsFailed), certificate?.Subject);
        }
        Assert.That(
            ErrorOf(() => NbdClient.ConnectAsync(AddressOf(server), Encrypting(TestCertificates.Alice, "elsewhere"))),
            Is.EqualTo(NbdClientError.TlsFailed));
        Assert.That(ErrorOf(() => NbdClient.ConnectAsync(AddressOf(server))), Is.EqualTo(NbdClientError.TlsRequired));
        await using NbdClient known = await NbdClient.ConnectAsync(AddressOf(server), Encrypting(TestCertificates.Alice));
        await known.ReadAsync(new byte[512], 0);
    }

    [Test]
    public async Task In_plain_text_only_what_is_plain_can_be_seen_and_opened([Values] SocketKind socket)
    {
        await using InteropServer server = await StartAsync(new ExportsPlugin(), socket, Selective, lenient: true);

        await using (NbdHandshake plain = await NbdHandshake.ConnectAsync(AddressOf(server)))
        {
            Assert.That((await plain.ListAsync()).Select(export => export.Name), Is.EqualTo(new[] { "disk" }));
            Assert.That(ErrorOf(() => plain.InfoAsync("größer")), Is.EqualTo(NbdClientError.TlsRequired));
            Assert.That(ErrorOf(() => plain.InfoAsync("no such")), Is.EqualTo(NbdClientError.TlsRequired));
            Assert.That((await plain.InfoAsync("disk")).Size, Is.EqualTo(512));
            await using NbdClient client = await plain.OpenAsync("disk");
            Assert.That(client.IsTls, Is.False);
            await client.ReadAsync(new byte[512], 0);
        }
        Assert.That(
            ErrorOf(() => NbdClient.ConnectAsync(AddressOf(server), new NbdClientOptions { ExportName = "größer" })),
            Is.EqualTo(NbdClientError.TlsRequired));
        await using NbdHandshake inside = await NbdHandshake.ConnectAsync(
            AddressOf(server), Encrypting() with { Tls = NbdTlsPolicy.Allow });
        Assert.That(inside.IsTls);
        Assert.That((await inside.ListAsync()).Select(export => export.Name), Is.EqualTo(ExportsPlugin.Names));
        await using NbdClient secret = await inside.OpenAsync("größer");
        Assert.That((secret.IsTls, secret.Info.Size), Is.EqualTo((true, 1_000_001)));
    }

    [Test]
    public async Task The_copy_engine_copies_there_and_back_through_the_proxy([Values] SocketKind socket)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path, TestCertificates.Alice);
        byte[] content = TestData.Random((8 << 20) + 512, seed: 9);
        content.AsSpan(1 << 20, 2 << 20).Clear();
        await using InteropServer server = await StartAsync(new MemoryPlugin { Size = content.Length }, socket, Verified);
        await using NbdBackend remote = NbdBackend.Compose(
            new NbdPlugin { Uri = UriOf(server, socket, folder.Path), Options = FromUri });
        await using (NextContext disk = await remote.OpenAsync())
        {
            await NbdCopy.CopyAsync(NbdCopySource.From(new MemoryStream(content)), NbdCopyDestination.To(disk));
        }
        var back = new MemoryStream();
        await using (NextContext disk = await remote.OpenAsync(readOnly: true))
        {
            await NbdCopy.CopyAsync(NbdCopySource.From(disk), NbdCopyDestination.To(back));
        }

        Assert.That(back.ToArray().AsSpan().SequenceEqual(content));
        Assert.That(server.Log.Entries.Count(entry => entry.Text.Contains("is encrypted")), Is.GreaterThanOrEqualTo(2));
    }

    [Test]
    public async Task Info_says_that_it_is_encrypted_and_lists_what_is_hidden_otherwise([Values] SocketKind socket)
    {
        using var folder = new ScratchDirectory();
        TestCertificates.Write(folder.Path);
        await using InteropServer server = await StartAsync(new ExportsPlugin(), socket, Selective);

        string encrypted = await InfoAsync("--list", UriOf(server, socket, folder.Path));
        string plain = await InfoAsync("--list", server.UriOf(""));

        Assert.That(encrypted, Does.Contain("TLS").And.Contain("größer").And.Contain("1000001"));
        Assert.That(plain, Does.Contain("disk").And.Not.Contain("größer").And.Contain("without TLS"));
    }

    [Test]
    public async Task A_certificate_replaced_while_serving_is_what_new_clients_see()
    {
        X509Certificate2 current = TestCertificates.Server;
        await using InteropServer server = await StartAsync(
            new MemoryPlugin { Size = 8 << 20 }, SocketKind.Tcp,
            new NbdServerTls((_, _) => new(new SslServerAuthenticationOptions { ServerCertificate = Volatile.Read(ref current) })),
            lenient: true);
        await using NbdClient before = await NbdClient.ConnectAsync(AddressOf(server), Encrypting());
        Volatile.Write(
            ref current,
            TestCertificates.Issue(TestCertificates.Stranger, "CN=localhost", TestCertificates.ServerUsage, ["localhost"]));

        Assert.That(ErrorOf(() => NbdClient.ConnectAsync(AddressOf(server), Encrypting())), Is.EqualTo(NbdClientError.TlsFailed));
        NbdClientOptions trusting = Encrypting();
        trusting.TlsAuthentication!.CertificateChainPolicy!.CustomTrustStore.Add(TestCertificates.Stranger);
        await using NbdClient after = await NbdClient.ConnectAsync(AddressOf(server), trusting);
        await RoundTripAsync(after, seed: 10);
        await RoundTripAsync(before, seed: 11);
    }

    private static async Task<string> InfoAsync(params string[] arguments)
    {
        var output = new MemoryStream();
        await InfoCommand.RunAsync(arguments, output).Soon();
        return Encoding.UTF8.GetString(output.ToArray());
    }
}
