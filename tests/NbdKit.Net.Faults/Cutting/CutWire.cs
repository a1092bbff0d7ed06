using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Cutting;

/// <summary>
/// Our client and our server on TCP, with TLS after NBD_OPT_STARTTLS or without: either of them stops at any byte, and the other
/// one notices.
/// </summary>
internal sealed class CutWire : IAsyncDisposable
{
    /// <summary>A form besides those of <see cref="CutSession"/>: NBD_OPT_STARTTLS, then NBD_OPT_GO.</summary>
    public const int Tls = CutSession.Forms;

    private readonly MutantPlugin _plugin = new();
    private readonly NbdServer _server;
    private readonly NbdServer _strict;

    private CutWire()
    {
        _server = Serve(CutLimits.Long);
        _strict = Serve(CutLimits.Short);
    }

    public static async Task<CutWire> StartAsync()
    {
        var wire = new CutWire();
        await wire._server.StartAsync();
        await wire._strict.StartAsync();
        return wire;
    }

    /// <summary>Runs a session whose client, or server, stops; how many bytes that side sent, or would have.</summary>
    /// <param name="form">The form of the session.</param>
    /// <param name="at">The bytes after which it stops.</param>
    /// <param name="kind">How.</param>
    /// <param name="client">Whether the client stops.</param>
    /// <param name="wholly">Whether the session has requests; else it ends when the export is open.</param>
    /// <param name="place">Where it stops, in place of <paramref name="at"/>.</param>
    public async Task<long> RunAsync(int form, long at, CutKind kind, bool client, bool wholly, RecordPlace? place = null)
    {
        bool stalls = kind == CutKind.Stall && (at < long.MaxValue || place is not null);
        NbdServer server = stalls && client ? _strict : _server;
        using var listening = new TcpListener(IPAddress.Loopback, 0);
        listening.Start();
        var whole = Stopwatch.StartNew();
        var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp) { NoDelay = true };
        await socket.ConnectAsync(listening.LocalEndpoint);
        Socket accepted = await listening.AcceptSocketAsync();
        await using var stopping = new StoppingStream(client ? socket : accepted, at, kind, place);
        Task<NbdDisconnect> serving = client ? server.ServeAsync(accepted) : server.ServeAsync(stopping);
        NbdClientOptions options = OptionsOf(form, stalls && !client ? CutLimits.Short : CutLimits.Long);
        Task<bool> talking = TalkAsync(
            client ? NbdClient.ConnectAsync(stopping, options) : NbdClient.ConnectAsync(socket, options), wholly, mayTimeOut: stalls && !client);
        if (stalls && await Task.WhenAny(stopping.Stopped, talking) == stopping.Stopped)
        {
            var silent = Stopwatch.StartNew();
            await (client ? serving : (Task)talking).Soon();
            CutLimits.Check(whole.Elapsed, silent.Elapsed);
        }
        bool succeeded = await talking.Soon();
        NbdDisconnect end = await serving.Soon();
        MutationException.Require(end.Reason != NbdDisconnectReason.Faulted, $"the server failed: {end}");
        MutationException.Require(
            !stalls || !client || !stopping.Stopped.IsCompleted || end.Reason == NbdDisconnectReason.Timeout, $"the end was {end}");
        MutationException.Require(succeeded || stopping.Stopped.IsCompleted, "a session failed that was not cut");
        return stopping.Sent;
    }

    /// <summary>Fails unless every context that was opened is closed.</summary>
    public async Task EndAsync()
    {
        await _server.StopAsync();
        await _strict.StopAsync();
        MutationException.Require(_plugin.Open == 0, $"{_plugin.Open} contexts are open");
    }

    public async ValueTask DisposeAsync()
    {
        await _server.DisposeAsync();
        await _strict.DisposeAsync();
    }

    private static NbdClientOptions OptionsOf(int form, TimeSpan limit) => new()
    {
        Tls = form == Tls ? NbdTlsPolicy.Require : NbdTlsPolicy.Off,
        TlsAuthentication = form == Tls ? TestCertificates.Client() : null,
        RequestExtendedHeaders = form is CutSession.Extended or Tls,
        RequestStructuredReplies = form >= CutSession.Structured,
        MetaContexts = form >= CutSession.Structured ? [ExtentList.BaseAllocation] : [],
        HandshakeTimeout = limit,
        RequestTimeout = limit,
    };

    /// <summary>Whether the session went well, which one that is cut behind what it waits for does.</summary>
    private static async Task<bool> TalkAsync(Task<NbdClient> connecting, bool wholly, bool mayTimeOut)
    {
        try
        {
            await using NbdClient client = await connecting;
            if (!wholly)
            {
                return true;
            }
            byte[] buffer = new byte[512];
            await client.ReadAsync(buffer, 4096);
            for (int i = 0; i < buffer.Length; i++)
            {
                MutationException.Require(buffer[i] == MutantPlugin.At((ulong)(4096 + i)), $"byte {i} of a read is {buffer[i]}");
            }
            await client.WriteAsync(buffer, 512);
            await client.TrimAsync(0, 512);
            await client.ZeroAsync(0, 512);
            await client.CacheAsync(0, 512);
            if (client.Info.MetaContexts.Count > 0)
            {
                await client.ExtentsAsync(0, 4096, RequestFlags.None, new ExtentList(0, 4096));
            }
            await client.FlushAsync();
            return true;
        }
        catch (NbdClientException e) when (
            e.Error is NbdClientError.ConnectionLost or NbdClientError.TlsFailed || (mayTimeOut && e.Error == NbdClientError.Timeout))
        {
            return false;
        }
    }

    private NbdServer Serve(TimeSpan limit) => new(NbdBackend.Compose(_plugin), new NbdServerOptions
    {
        Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false },
        MaxConnections = 1000,
        HandshakeTimeout = limit,
        StallTimeout = limit,
    });
}
