using NbdKit.Server;

namespace NbdKit.Faults.Mutation;

/// <summary>A server, and what a client sends it: with the handshake spoilt, or only the requests behind it.</summary>
internal class ServerTarget : MutationTarget
{
    /// <summary>How good sessions are served.</summary>
    public static readonly NbdServerOptions Common = new()
    {
        MaxPayload = 1 << 20,
        // Good sessions ask about unknown exports as often as they like, and must be served all the same.
        MaxOpensInHandshake = 64,
        HandshakeTimeout = Timeout.InfiniteTimeSpan,
        OpenTimeout = Timeout.InfiniteTimeSpan,
    };

    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    private static readonly NbdServerOptions[] Variants =
    [
        Common,
        Common with { RequirePayloadFlag = true, OfferNoZeroes = false },
        Common with { ReadOnly = true },
        Common with { MaxOptionPayload = 8 << 10, MaxMetaQueries = 2, MaxOpensInHandshake = 2, MaxOptions = 6 },
        Common with { OfferStructuredReplies = false, OfferExtendedHeaders = false, OfferMetaContexts = false, OfferList = false },
    ];

    private static readonly string[] Exports = ["odd", "huge", MutantHandle.Sick, MutantHandle.Late];

    private readonly bool _handshake;
    private readonly NbdBackend[] _backends;
    private readonly ServerCore[] _cores;
    private readonly HashSet<int> _acquired = [];
    private readonly MemoryStream _output = new();
    private int _ends;

    public ServerTarget(bool handshake)
    {
        _handshake = handshake;
        _backends = [.. Variants.Select(_ => NbdBackend.Compose(Plugin))];
        _cores = [.. Variants.Select((options, i) => new ServerCore(
            _backends[i], options with { Disconnected = (_, _) => _ends++ }, () => { }))];
    }

    public override string Name => _handshake ? "handshake" : "requests";

    protected MutantPlugin Plugin { get; } = new();

    public override MutantStream Make(Random random, bool legal)
    {
        byte variant = (byte)(legal ? 0 : random.Next(Variants.Length));
        (List<WireMessage> session, int keep) = Session(random, legal);
        return new MutantStream(
            variant,
            legal ? Mutator.Chop(Mutator.Join(session), random) : Mutator.Spoil(session, Session(random, legal).Messages, keep, random));
    }

    public override Task<long> RunAsync(MutantStream stream, bool legal) => ServeAsync(stream.Variant, stream.Chunks, legal);

    public override void CheckBalance() => Array.ForEach(_cores, PoolBalance.Check);

    public override async ValueTask DisposeAsync()
    {
        for (int i = 0; i < _cores.Length; i++)
        {
            await _cores[i].StopAsync(CancellationToken.None);
            _cores[i].Dispose();
            if (_acquired.Contains(i))
            {
                await _backends[i].ReleaseAsync(host: false, CancellationToken.None);
            }
        }
    }

    protected async Task<long> ServeAsync(byte variant, byte[][] chunks, bool legal)
    {
        int which = variant % Variants.Length;
        if (_acquired.Add(which))
        {
            await _backends[which].AcquireAsync(null, host: false, CancellationToken.None);
        }
        NbdServerOptions options = Variants[which];
        _output.SetLength(0);
        var transport = new ReplayTransport(chunks, _output);
        Plugin.Reset();
        _ends = 0;
        NbdDisconnect end = await _cores[which].ServeAsync(transport, CancellationToken.None).WaitAsync(Patience);
        var judge = new ServerJudge(
            [.. chunks.SelectMany(chunk => chunk)],
            transport.Output,
            new ServerRules(
                options.OfferNoZeroes ? 3u : 1u, options.RequirePayloadFlag, (uint)options.MaxPayload, (uint)options.MaxOptionPayload)
            {
                IsZero = Plugin.IsZero,
            });
        judge.Check(end.Reason);
        MutationException.Require(_ends == 1, $"the host was told {_ends} times of the end");
        MutationException.Require(_cores[which].Budget.Held == 0, $"{_cores[which].Budget.Held} bytes of the budget are held after the end");
        MutationException.Require(Plugin.Open == 0, $"{Plugin.Open} contexts are open after the end");
        MutationException.Require(Plugin.Broken is null, Plugin.Broken!);
        MutationException.Require(
            !legal || (end.Reason == NbdDisconnectReason.ClientDone && judge is { Answered: > 0, Failed: 0 }),
            $"a good session ended by {end}, with {judge.Answered} replies and {judge.Failed} errors");
        return judge.Declared;
    }

    private (List<WireMessage> Messages, int Keep) Session(Random random, bool legal)
    {
        int form = random.Next(5);
        string export = legal || random.Next(4) > 0 ? "" : Exports[random.Next(Exports.Length)];
        List<WireMessage> messages = ClientSpeech.Handshake(random, _handshake ? 4 : 0, form, export);
        int keep = _handshake ? 0 : messages.Count;
        messages.AddRange(ClientSpeech.Requests(random, form, export, flushes: true));
        return (messages, keep);
    }
}
