using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Interop;

/// <summary>The servers that our client connects to: it opens the disk of each, reads it, writes and compares.</summary>
internal static class ServingPrograms
{
    private const int Size = 1 << 20;

    public static IReadOnlyList<string> Names { get; } = ["nbdkit", "qemu-nbd", "nbd-server"];

    /// <summary>One session.</summary>
    public static async Task RunAsync(string name, SocketKind socket, bool isTls)
    {
        using var folder = new ScratchDirectory();
        await using PeerServer server = await (name switch
        {
            "nbdkit" => PeerServer.NbdkitAsync(socket, [.. isTls ? ["--tls=require", "--tls-certificates=$PKI"] : Array.Empty<string>(), "memory", "1M"]),
            "qemu-nbd" => PeerServer.QemuAsync(socket, isTls
                ? ["--object=tls-creds-x509,id=tls0,endpoint=server,dir=$PKI,verify-peer=no", "--tls-creds=tls0"] : []),
            _ => PeerServer.NbdServerAsync(
            [
                .. socket == SocketKind.Unix ? [$"unixsock = {folder["s"]}"] : Array.Empty<string>(),
                .. isTls
                    ? ["force_tls = true", "certfile = $PKI/server-cert.pem", "keyfile = $PKI/server-key.pem", "cacertfile = $PKI/ca-cert.pem"]
                    : Array.Empty<string>(),
            ]),
        });
        string export = name == "nbd-server" ? "disk" : "";
        string path = name == "nbd-server" ? folder["s"] : server.Socket;
        string uri = socket == SocketKind.Unix
            ? $"nbd{(isTls ? "s" : "")}+unix:///{export}?socket={path}{(isTls ? "&tls-hostname=nbd.example" : "")}"
            : $"nbd{(isTls ? "s" : "")}://127.0.0.1:{server.Port}/{export}";
        var options = new NbdClientOptions
        {
            Tls = NbdTlsPolicy.Off,
            TlsAuthentication = isTls ? ServerCertificates.Trusting(host: null, ServerCertificates.Client) : null,
        };
        byte[] expected = name == "nbdkit" ? new byte[Size] : TestData.Random(Size, 1);
        byte[] data = TestData.Random(70_001, 5);
        byte[] read = new byte[Size];
        await using (NbdClient client = await NbdClient.ConnectAsync(uri, options))
        {
            Expect.That(client.IsTls == isTls, "whether it is encrypted");
            await client.ReadAsync(read, 0);
            Expect.Same(read, expected, "what it holds at first");
            await client.WriteAsync(data, 4096);
            if (client.Info.CanFlush)
            {
                await client.FlushAsync();
            }
        }
        data.CopyTo(expected, 4096);
        await using NbdClient second = await NbdClient.ConnectAsync(uri, options);
        await second.ReadAsync(read, 0);
        Expect.Same(read, expected, "what was written");
    }
}
