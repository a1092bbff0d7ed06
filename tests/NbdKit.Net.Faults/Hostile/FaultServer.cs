using System.Net;
using System.Net.Sockets;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Hostile;

/// <summary>
/// A server in this process on a Unix socket and on a port of the loopback. Its disk is huge: at the start it holds bytes that
/// are known, for bystanders; what happens beyond them is the row's.
/// </summary>
internal sealed class FaultServer : IAsyncDisposable
{
    private readonly ScratchDirectory _folder;

    private FaultServer(NbdBackend chain, NbdServerOptions options, ScratchDirectory folder)
    {
        _folder = folder;
        Server = new NbdServer(chain, options with
        {
            LoggerFactory = Log,
            EndPoints = [new UnixDomainSocketEndPoint(folder["s"]), new IPEndPoint(IPAddress.Loopback, 0)],
        });
    }

    /// <summary>What the disk begins with.</summary>
    public static byte[] Content { get; } = TestData.Random(1 << 20);

    /// <summary>The size of the disk.</summary>
    public static long Size => 1L << 40;

    public NbdServer Server { get; }

    public FaultLog Log { get; } = new();

    public EndPoint Unix => Server.EndPoints[0];

    public EndPoint Tcp => Server.EndPoints[1];

    /// <summary>Serves any plugin.</summary>
    public static Task<FaultServer> StartAsync(INbdPlugin plugin, NbdServerOptions options)
        => StartAsync(NbdBackend.Compose(plugin), options);

    /// <summary>Serves any chain.</summary>
    public static async Task<FaultServer> StartAsync(NbdBackend chain, NbdServerOptions options)
    {
        var server = new FaultServer(chain, options, new ScratchDirectory());
        await server.Server.StartAsync();
        return server;
    }

    /// <summary>Serves the disk.</summary>
    /// <param name="beyond">How reads behind the known bytes are answered.</param>
    /// <param name="options">How to serve; the endpoints and the log are this class's.</param>
    public static Task<FaultServer> StartAsync(
        Func<Memory<byte>, long, CancellationToken, ValueTask> beyond, NbdServerOptions options)
        => StartAsync(Disk(beyond), options);

    /// <summary>The disk.</summary>
    public static DelegatePlugin Disk(Func<Memory<byte>, long, CancellationToken, ValueTask> beyond) => new()
    {
        ThreadModel = ThreadModel.Parallel,
        Size = Size,
        Read = (buffer, offset, token) =>
        {
            if (offset + buffer.Length > Content.Length)
            {
                return beyond(buffer, offset, token);
            }
            Content.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
            return default;
        },
    };

    public Task<NbdClient> ConnectAsync() => NbdClient.ConnectAsync(Unix);

    /// <summary>A client that reads the known bytes again and again.</summary>
    public async Task<Bystander> BystanderAsync() => new(await ConnectAsync(), Content);

    /// <summary>How a bystander fares while nothing else happens.</summary>
    public async Task<(int Count, double P99, double Longest)> QuietAsync(TimeSpan time)
    {
        await using Bystander bystander = await BystanderAsync();
        await Task.Delay(time);
        return await bystander.EndAsync();
    }

    public async ValueTask DisposeAsync()
    {
        await Server.DisposeAsync();
        _folder.Dispose();
    }
}
