using NbdKit.Faults.Mutation;
using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Cutting;

/// <summary>Our server, whose client stops at any byte.</summary>
internal sealed class CutServer : IAsyncDisposable
{
    private static readonly TimeSpan Moment = TimeSpan.FromMilliseconds(1);
    private static readonly TimeSpan Step = 4 * ServerCore.WatchInterval;

    private readonly FakeTimeProvider _time = new();
    private readonly MutantPlugin _plugin = new();
    private readonly NbdServerOptions _options;
    private readonly NbdBackend _backend;
    private readonly ServerCore _core;

    private CutServer()
    {
        _options = new NbdServerOptions { TimeProvider = _time };
        _backend = NbdBackend.Compose(_plugin);
        _core = new ServerCore(_backend, _options, () => { });
    }

    public static async Task<CutServer> StartAsync()
    {
        var server = new CutServer();
        await server._backend.AcquireAsync(null, host: false, CancellationToken.None);
        return server;
    }

    /// <summary>Cuts one session.</summary>
    public async Task RunAsync(int form, int at, CutKind kind)
    {
        (byte[] bytes, int handshake) = CutSession.OfClient(form);
        var transport = new CutTransport(bytes, at, kind);
        Task<NbdDisconnect> serving = _core.ServeAsync(transport, CancellationToken.None);
        bool isIdle = kind == CutKind.Stall && CutSession.IsBetweenRequests(form, at, handshake);
        if (kind == CutKind.Stall && at < bytes.Length)
        {
            await transport.Stalled.Soon();
            TimeSpan limit = at < handshake ? _options.HandshakeTimeout : _options.StallTimeout;
            Advance(limit - Moment);
            MutationException.Require(!serving.IsCompleted, $"the client had {Moment} left");
            // Of an idle one's time a day passes at a blow: twice, because the first one is forgiven.
            Advance(Moment);
            for (int i = 0; isIdle && i < 2; i++)
            {
                Leap(TimeSpan.FromDays(1));
            }
            MutationException.Require(!isIdle || !serving.IsCompleted, "a client that does nothing was cut off");
            if (isIdle)
            {
                transport.Finish();
            }
        }
        NbdDisconnect end = await serving.Soon();
        new ServerJudge(bytes[..at], transport.Output, new ServerRules(3, false, (uint)_options.MaxPayload, (uint)_options.MaxOptionPayload))
            .Check(end.Reason);
        NbdDisconnectReason[] expected = Expected(form, at, kind, bytes.Length, handshake, isIdle);
        MutationException.Require(expected.Contains(end.Reason), $"the end was {end}, not {string.Join(" or ", expected)}");
        PoolBalance.Check(_core);
        MutationException.Require(_plugin.Open == 0, $"{_plugin.Open} contexts are open");
        MutationException.Require(_core.Connections.Count == 0, "the connection is still there");
    }

    public async ValueTask DisposeAsync()
    {
        // After a failure something may be left that only time ends.
        await _time.AdvanceUntilAsync(_core.StopAsync(CancellationToken.None));
        _core.Dispose();
        await _backend.ReleaseAsync(host: false, CancellationToken.None);
    }

    private static NbdDisconnectReason[] Expected(int form, int at, CutKind kind, int length, int handshake, bool isIdle)
        => at == length ? [NbdDisconnectReason.ClientDone]
            : kind == CutKind.Reset ? [NbdDisconnectReason.ConnectionLost]
            : kind == CutKind.Stall ? [isIdle ? NbdDisconnectReason.ClientGone : NbdDisconnectReason.Timeout]
            : at >= handshake ? [CutSession.IsBetweenRequests(form, at, handshake) ? NbdDisconnectReason.ClientGone : NbdDisconnectReason.ConnectionLost]
            : [NbdDisconnectReason.ClientGone, NbdDisconnectReason.ConnectionLost];

    // In the steps of a server that is not late: time that passes at a blow is time in which the process stood still.
    private void Advance(TimeSpan time)
    {
        for (; time > Step; time -= Step)
        {
            Leap(Step);
        }
        Leap(time);
    }

    private void Leap(TimeSpan time)
    {
        _time.Advance(time);
        // What the server's timer does a few times a second.
        _core.CheckTime();
    }
}
