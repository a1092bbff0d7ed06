using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>The thread models as clients see them.</summary>
public sealed class ThreadModelServerTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private CallRecorder _calls = null!;
    private RecordingPlugin _plugin = null!;
    private Dictionary<long, Gate> _gates = null!;

    [SetUp]
    public void SetUp()
    {
        _calls = new CallRecorder();
        _gates = Enumerable.Range(0, 8).ToDictionary(i => 512L * i, _ => new Gate());
    }

    [Test]
    public async Task With_serialized_connections_only_an_open_export_holds_the_place()
    {
        await using ChainServer server = await ServeAsync(ThreadModel.SerializeConnections);
        // Neither a client that says nothing nor one that stops after the greeting nor one that only asks holds anything.
        server.Connect();
        await server.HaggleAsync();
        WireClient asking = await server.HaggleAsync();
        Assert.That((await asking.InfoAsync("disk")).IsAck);
        WireClient first = await server.TransmitAsync();
        WireClient second = await server.HaggleAsync();
        Task<OptionResult> going = second.TryGoAsync("disk");
        WireClient third = await server.HaggleAsync();
        Assert.That((await third.OptAsync(Opt.List)).IsAck, "what opens nothing goes on");
        await first.ReadDataAsync(4096, 1);
        Assert.That((going.IsCompleted, _calls.Count("plugin", "open")), Is.EqualTo((false, 2)));
        await first.SendRequestAsync(Cmd.Disc);
        Assert.That((await going.Soon()).IsAck);
        await second.ReadDataAsync(4096, 1);
        Assert.That(first.Flags & TxFlag.CanMultiConn, Is.Zero, "E12: a second connection would wait for ever");
    }

    [Test, Property("Rule", "E12")]
    public async Task E12_Multi_conn_is_offered_by_every_other_model()
    {
        foreach (ThreadModel model in Enum.GetValues<ThreadModel>())
        {
            _calls.Clear();
            await using ChainServer server = await ServeAsync(model);
            WireClient client = await server.TransmitAsync();
            Assert.That(
                (client.Flags & TxFlag.CanMultiConn) != 0, Is.EqualTo(model != ThreadModel.SerializeConnections), model.ToString());
        }
    }

    [Test]
    public async Task A_waiting_client_that_leaves_gives_its_turn_to_the_next()
    {
        await using ChainServer server = await ServeAsync(ThreadModel.SerializeConnections);
        WireClient first = await server.TransmitAsync();
        using var cut = new CancellationTokenSource();
        WireClient second = server.Connect(cut.Token);
        await second.GreetAsync();
        Task<OptionResult> waiting = second.TryGoAsync("disk");
        WireClient third = await server.HaggleAsync();
        Task<OptionResult> next = third.TryGoAsync("disk");
        await cut.CancelAsync();
        await second.ExpectEndAsync(NbdDisconnectReason.ServerStopped);
        Assert.That(async () => await waiting, Throws.InstanceOf<EndOfStreamException>());
        await first.SendRequestAsync(Cmd.Disc);
        Assert.That((await next.Soon()).IsAck);
    }

    [Test]
    public async Task With_all_requests_serialized_a_client_stuck_in_its_handshake_blocks_nobody()
    {
        await using ChainServer server = await ServeAsync(ThreadModel.SerializeAllRequests);
        server.Connect();
        await server.HaggleAsync();
        WireClient first = await server.TransmitAsync();
        WireClient second = await server.TransmitAsync();
        await first.SendRequestAsync(Cmd.Read, 0, 1);
        await _gates[0].ArrivedAsync();
        await second.SendRequestAsync(Cmd.Read, 512, 1);
        // The second client's loop has taken its request, or it would not answer this refusal.
        Assert.That((await ReadRefusalAsync(second)).Error, Is.EqualTo(Errno.Inval));
        Assert.That(Reads, Is.EqualTo(new[] { 0 }));
        _gates[0].Open();
        await first.ReadReplyAsync();
        await _gates[512].ArrivedAsync();
        _gates[512].Open();
        await second.ReadReplyAsync();
    }

    [Test]
    public async Task Parallel_replies_go_out_as_the_calls_finish()
    {
        await using ChainServer server = await ServeAsync(ThreadModel.Parallel);
        WireClient client = await server.TransmitAsync();
        WireCall first = await client.SendRequestAsync(Cmd.Read, 0, 1);
        WireCall second = await client.SendRequestAsync(Cmd.Read, 512, 1);
        await _gates[0].ArrivedAsync();
        await _gates[512].ArrivedAsync();
        _gates[512].Open();
        Assert.That((await client.ReadReplyAsync()).Cookie, Is.EqualTo(second.Cookie));
        _gates[0].Open();
        Assert.That((await client.ReadReplyAsync()).Cookie, Is.EqualTo(first.Cookie));
    }

    [TestCase(false)]
    [TestCase(true)]
    public async Task Serialized_retirement_keeps_the_order_of_replies_refusals_and_empty_ones_included(bool structured)
    {
        await using ChainServer server = await ServeAsync(ThreadModel.SerializeRetirement);
        WireClient client = await server.TransmitAsync(structured: structured);
        WireCall[] sent =
        [
            await client.SendRequestAsync(Cmd.Read, 0, 1),
            await client.SendRequestAsync(Cmd.Read, 512, 1),
            await client.SendRequestAsync(Cmd.Read, ulong.MaxValue, 1),
            await client.SendRequestAsync(Cmd.Write, 1024, 2, payload: [1, 2]),
            await client.SendRequestAsync(Cmd.Write, 65_536, 2, payload: [1, 2]),
            await client.SendRequestAsync(Cmd.Read, 0, 0),
            await client.SendRequestAsync(Cmd.Flush),
            await client.SendRequestAsync(Cmd.Read, 1536, 1),
        ];
        await _gates[0].ArrivedAsync();
        await _gates[512].ArrivedAsync();
        await _gates[1536].ArrivedAsync();
        Assert.That(Reads, Is.EqualTo(new[] { 0, 512, 1536 }), "inside they run in parallel");
        _gates[1536].Open();
        _gates[512].Open();
        _gates[0].Open();
        var replies = new List<WireReply>();
        for (int i = 0; i < sent.Length; i++)
        {
            replies.Add(await client.ReadReplyAsync());
        }
        Assert.That(replies.Select(reply => reply.Cookie), Is.EqualTo(sent.Select(call => call.Cookie)));
        Assert.That(replies.Select(reply => reply.Error),
            Is.EqualTo(new[] { Errno.Ok, Errno.Ok, Errno.Inval, Errno.Ok, Errno.NoSpc, Errno.Ok, Errno.Ok, Errno.Ok }));
    }

    private IReadOnlyList<long> Reads => [.. _calls.Calls.Where(c => c.Callback == "read").Select(c => c.Offset)];

    private async Task<ChainServer> ServeAsync(ThreadModel model)
    {
        _plugin = new RecordingPlugin(_calls) { ThreadModel = model };
        _plugin.Script.OnCall = (call, _)
            => call.Callback == "read" && _gates.TryGetValue(call.Offset, out Gate? gate) ? gate.PassAsync(None) : default;
        return await ChainServer.StartAsync(NbdBackend.Compose(_plugin));
    }

    private static Task<WireReply> ReadRefusalAsync(WireClient client)
        => client.ExpectCallAsync(Errno.Inval, Cmd.Read, ulong.MaxValue, 1);
}
