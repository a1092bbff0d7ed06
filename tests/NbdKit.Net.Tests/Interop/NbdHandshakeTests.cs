using System.Security.Cryptography.X509Certificates;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>The client's handshake with servers that others wrote.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class NbdHandshakeTests
{
    private static string Uri(PeerServer server, string export = "", bool tls = false)
    {
        string scheme = tls ? "nbds" : "nbd";
        string name = System.Uri.EscapeDataString(export);
        return server.Port == 0
            ? $"{scheme}+unix:///{name}?socket={server.Socket}{(tls ? "&tls-hostname=nbd.example" : "")}"
            : $"{scheme}://127.0.0.1:{server.Port}/{name}";
    }

    private static NbdClientOptions Trusting(X509Certificate2? client = null, NbdTlsPolicy policy = NbdTlsPolicy.Off) => new()
    {
        Tls = policy,
        TlsAuthentication = ServerCertificates.Trusting(host: null, client),
    };

    private static async Task CheckContentAsync(string uri, NbdClientOptions? options, byte[] expected)
    {
        await using NbdClient client = await NbdClient.ConnectAsync(uri, options).Soon();
        byte[] buffer = new byte[expected.Length];
        await client.ReadAsync(buffer, 0).Soon();
        Assert.That(buffer.AsSpan().SequenceEqual(expected), Is.True);
        Assert.That(client.IsTls, Is.EqualTo(uri.StartsWith("nbds", StringComparison.Ordinal)));
    }

    private static async Task<NbdClientError> FailureAsync(string uri, NbdClientOptions options)
    {
        try
        {
            await (await NbdHandshake.ConnectAsync(uri, options).Soon()).DisposeAsync();
        }
        catch (NbdClientException e)
        {
            return e.Error;
        }
        throw new AssertionException($"It connected to {uri}.");
    }

    [Test]
    public async Task Nbdkit_is_asked([Values] SocketKind socket)
    {
        await using PeerServer server = await PeerServer.NbdkitAsync(
            socket, "--filter=blocksize-policy", "pattern", "1M", "blocksize-minimum=512", "blocksize-preferred=4K", "blocksize-maximum=1M");
        await using NbdHandshake handshake = await NbdHandshake.ConnectAsync(Uri(server)).Soon();

        Assert.That((await handshake.ListAsync().Soon()).Select(e => e.Name), Is.EqualTo([""]));
        NbdExportInfo info = await handshake.InfoAsync("").Soon();
        Assert.That(info.Size, Is.EqualTo(1 << 20));
        Assert.That(info.BlockSize, Is.EqualTo(new BlockSize(512, 4096, 1 << 20)));
        Assert.That((info.CanWrite, info.CanDf, info.CanMultiConn, info.CanExtents), Is.EqualTo((false, true, true, true)));
        Assert.That(await handshake.ListMetaContextsAsync("").Soon(), Is.EqualTo(["base:allocation"]));
        byte[] pattern = [.. Enumerable.Range(0, 64).SelectMany(i => BitConverter.GetBytes((ulong)i * 8).Reverse())];
        await CheckContentAsync(Uri(server), null, pattern);
    }

    [Test]
    public async Task Nbdkit_requires_TLS([Values] SocketKind socket)
    {
        await using PeerServer server =
            await PeerServer.NbdkitAsync(socket, "--tls=require", "--tls-certificates=$PKI", "memory", "1M");

        await CheckContentAsync(Uri(server, tls: true), Trusting(), new byte[4096]);
        Assert.That(await FailureAsync(Uri(server), Trusting()), Is.EqualTo(NbdClientError.TlsRequired));
        Assert.That(
            await FailureAsync(Uri(server, tls: true), new NbdClientOptions()), Is.EqualTo(NbdClientError.TlsFailed), "the system does not know it");
        await CheckContentAsync(
            $"{Uri(server, tls: true)}{(socket == SocketKind.Unix ? "&" : "?")}tls-certificates={server.Certificates}",
            new NbdClientOptions { AllowLocalFilesInUris = true },
            new byte[4096]);
    }

    [Test]
    public async Task Nbdkit_offers_TLS()
    {
        await using PeerServer server =
            await PeerServer.NbdkitAsync(SocketKind.Tcp, "--tls=on", "--tls-certificates=$PKI", "memory", "1M");

        foreach ((NbdTlsPolicy policy, bool encrypted) in new[]
        {
            (NbdTlsPolicy.Off, false), (NbdTlsPolicy.Allow, true), (NbdTlsPolicy.Require, true),
        })
        {
            await using NbdHandshake handshake = await NbdHandshake.ConnectAsync(Uri(server), Trusting(policy: policy)).Soon();
            Assert.That(handshake.IsTls, Is.EqualTo(encrypted));
        }
    }

    [Test]
    public async Task Nbdkit_wants_to_know_its_clients()
    {
        await using PeerServer server = await PeerServer.NbdkitAsync(
            SocketKind.Tcp, "--tls=require", "--tls-certificates=$PKI", "--tls-verify-peer", "memory", "1M");

        await CheckContentAsync(Uri(server, tls: true), Trusting(ServerCertificates.Client), new byte[512]);
        Assert.That(await FailureAsync(Uri(server, tls: true), Trusting()), Is.EqualTo(NbdClientError.TlsFailed));
    }

    [Test]
    public async Task Nbdkit_without_TLS_is_no_server_for_a_client_that_requires_it()
    {
        await using PeerServer server = await PeerServer.NbdkitAsync(SocketKind.Unix, "memory", "1M");

        Assert.That(await FailureAsync(Uri(server, tls: true), Trusting()), Is.EqualTo(NbdClientError.TlsUnavailable));
        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => NbdClient.ConnectAsync("nbd+unix:///?socket=" + server.Certificates).Soon())!.Error,
            Is.EqualTo(NbdClientError.ConnectFailed));
    }

    [Test]
    public async Task Qemu_nbd_is_asked([Values] SocketKind socket)
    {
        await using PeerServer server = await PeerServer.QemuAsync(socket, "-x", "größer", "-D", "a disk", "-A");
        await using NbdHandshake handshake = await NbdHandshake.ConnectAsync(Uri(server)).Soon();

        Assert.That(await handshake.ListAsync().Soon(), Is.EqualTo(new[] { new NbdExport("größer", "a disk") }));
        NbdExportInfo info = await handshake.InfoAsync("größer").Soon();
        Assert.That((info.Size, info.Description), Is.EqualTo((1L << 20, "a disk")));
        Assert.That(info.BlockSize.IsKnown, Is.True);
        Assert.That(
            await handshake.ListMetaContextsAsync("größer").Soon(), Is.EqualTo(["base:allocation", "qemu:allocation-depth"]));
        Assert.That(
            await handshake.ListMetaContextsAsync("größer", ["qemu:"]).Soon(), Is.EqualTo(["qemu:allocation-depth"]));
        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => handshake.InfoAsync("nowhere").Soon())!.Error,
            Is.EqualTo(NbdClientError.ExportUnknown));
        await handshake.DisposeAsync();
        await CheckContentAsync(Uri(server, "größer"), null, TestData.Random(1 << 20, 1));
    }

    [Test]
    public async Task Qemu_nbd_requires_TLS([Values] bool verify)
    {
        await using PeerServer server = await PeerServer.QemuAsync(
            SocketKind.Tcp,
            $"--object=tls-creds-x509,id=tls0,endpoint=server,dir=$PKI,verify-peer={(verify ? "yes" : "no")}",
            "--tls-creds=tls0");

        await CheckContentAsync(Uri(server, tls: true), Trusting(ServerCertificates.Client), TestData.Random(1 << 20, 1));
        Assert.That(await FailureAsync(Uri(server), Trusting()), Is.EqualTo(NbdClientError.TlsRequired));
        if (verify)
        {
            Assert.That(await FailureAsync(Uri(server, tls: true), Trusting()), Is.EqualTo(NbdClientError.TlsFailed));
        }
    }

    [Test]
    public async Task Nbd_server_is_asked()
    {
        await using PeerServer server = await PeerServer.NbdServerAsync();
        await using NbdHandshake handshake = await NbdHandshake.ConnectAsync(Uri(server)).Soon();

        Assert.That((await handshake.ListAsync().Soon()).Select(e => e.Name), Is.EqualTo(["disk"]));
        // It has no size in its answer to this, only when the export is opened.
        Assert.That((await handshake.InfoAsync("disk").Soon()).CanWrite, Is.True);
        await handshake.DisposeAsync();
        await CheckContentAsync(Uri(server, "disk"), null, TestData.Random(1 << 20, 1));
        Assert.That(
            Assert.ThrowsAsync<NbdClientException>(() => NbdClient.ConnectAsync(Uri(server, "nowhere")).Soon())!.Error,
            Is.EqualTo(NbdClientError.ExportUnknown));
    }

    [Test]
    public async Task Nbd_server_requires_TLS()
    {
        await using PeerServer server = await PeerServer.NbdServerAsync(
            "force_tls = true", "certfile = $PKI/server-cert.pem", "keyfile = $PKI/server-key.pem", "cacertfile = $PKI/ca-cert.pem");

        await CheckContentAsync(
            Uri(server, "disk", tls: true), Trusting(ServerCertificates.Client), TestData.Random(1 << 20, 1));
        Assert.That(await FailureAsync(Uri(server), Trusting()), Is.EqualTo(NbdClientError.TlsRequired));
    }
}
