using Microsoft.Extensions.Logging;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Interop;

/// <summary>Our server with a disk of known content, for one session of a program that others wrote.</summary>
internal sealed class ServedSession : IAsyncDisposable
{
    public const int Size = 4 << 20;

    private readonly InteropServer _server;

    private ServedSession(InteropServer server, SocketKind socket, bool isTls, int seed)
    {
        _server = server;
        Socket = socket;
        IsTls = isTls;
        Content = TestData.Random(Size, seed);
        TestCertificates.Write(Pki, TestCertificates.Alice);
        File.WriteAllBytes(Source, Content);
    }

    public SocketKind Socket { get; }

    public bool IsTls { get; }

    /// <summary>What the disk holds at first.</summary>
    public byte[] Content { get; }

    public ScratchDirectory Folder { get; } = new();

    /// <summary>A file with the content.</summary>
    public string Source => Folder["source"];

    /// <summary>The directory of the certificates.</summary>
    public string Pki => Folder["pki"];

    public string Uri => IsTls
        // The certificate names the host.
        ? $"{_server.Uri.Replace("127.0.0.1", "localhost", StringComparison.Ordinal)}{(Socket == SocketKind.Unix ? '&' : '?')}tls-certificates={Pki}"
        : _server.Uri;

    public string SocketPath => _server.SocketPath;

    public int Port => _server.Port;

    /// <summary>How QEMU's programs are told of certificates and of the disk.</summary>
    public string[] QemuImage
    {
        get
        {
            string where = Socket == SocketKind.Unix
                ? $"server.type=unix,server.path={SocketPath}" : $"server.type=inet,server.host=127.0.0.1,server.port={Port}";
            string[] credentials = ["--object", $"tls-creds-x509,id=tls0,endpoint=client,dir={Pki}"];
            return [.. IsTls ? credentials : [], "--image-opts", $"driver=nbd,{where}{(IsTls ? ",tls-creds=tls0,tls-hostname=localhost" : "")}"];
        }
    }

    public static async Task<ServedSession> StartAsync(SocketKind socket, bool isTls, int seed)
    {
        NbdServerTls? tls = isTls
            ? new NbdServerTls(TestCertificates.Server)
            {
                ClientCertificates = NbdClientCertificates.Required,
                ClientAuthorities = TestCertificates.Authorities,
            }
            : null;
        InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = Size }), socket, new NbdServerOptions { Tls = tls }, lenient: true);
        var session = new ServedSession(server, socket, isTls, seed);
        await using NbdClient client = await session.ConnectAsync();
        await client.WriteAsync(session.Content, 0);
        return session;
    }

    /// <summary>Fails unless the disk holds these bytes at a position.</summary>
    public async Task CheckDiskAsync(ReadOnlyMemory<byte> expected, long offset)
    {
        byte[] read = new byte[expected.Length];
        await using NbdClient client = await ConnectAsync();
        await client.ReadAsync(read, offset);
        Expect.Same(read, expected.Span, $"the {expected.Length} bytes of the disk at {offset}");
    }

    public async ValueTask DisposeAsync()
    {
        await _server.DisposeAsync();
        Folder.Dispose();
        Expect.That(
            _server.Log.Entries.All(entry => entry.Level < LogLevel.Error),
            string.Join('\n', _server.Log.Entries.Where(entry => entry.Level >= LogLevel.Error).Select(entry => entry.Text)));
    }

    private Task<NbdClient> ConnectAsync()
        => NbdClient.ConnectAsync(_server.Server.EndPoints[0], new NbdClientOptions
        {
            Tls = IsTls ? NbdTlsPolicy.Require : NbdTlsPolicy.Off,
            TlsAuthentication = IsTls ? TestCertificates.Client(TestCertificates.Alice) : null,
        });
}
