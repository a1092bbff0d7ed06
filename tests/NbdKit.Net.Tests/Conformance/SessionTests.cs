using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>Whole sessions: what every server must be able to do, however the bytes arrive and wherever they end.</summary>
public sealed class SessionTests : WireTest
{
    // The split points are dealt out to so many cases, to see in the report where a failure is.
    private const int Runs = 4;

    [Test, Property("Rule", "S247")]
    public async Task S247_A_client_that_knows_only_the_baseline_completes_a_copy()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("from", 1 << 20), new TestExport("to", 1 << 20)
        {
            Data = new byte[1 << 20],
        }));
        WireClient from = await server.HaggleAsync();
        WireClient to = await server.HaggleAsync();
        await from.ExpectOptAsync(Rep.Unsup, 0x4321);
        Assert.That((await from.OptAsync(Opt.List)).Before.Select(reply => reply.ServerName), Is.EqualTo(new[] { "from", "to" }));
        await from.GoAsync("from");
        await to.GoAsync("to");

        for (ulong at = 0; at < from.Size; at += 65_536)
        {
            await to.WriteDataAsync(at, await from.ReadDataAsync(at, 65_536));
        }
        foreach (WireClient client in new[] { from, to })
        {
            await client.SendRequestAsync(Cmd.Disc);
            await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        }

        WireClient check = await server.TransmitAsync("to");
        Assert.That((await check.ReadDataAsync(0, 1 << 20)).AsSpan().SequenceEqual(server.Plugin.Data));
        WireClient leaving = await server.HaggleAsync();
        await leaving.ExpectOptAsync(Rep.Ack, Opt.Abort);
        await leaving.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
    }

    [Test, Property("Rule", "S248")]
    public async Task S248_EXPORT_NAME_FLUSH_and_FUA_are_there_and_block_sizes_are_never_required()
    {
        ServerFixture server = await ServeAsync(new TestExport
        {
            Configure = info => info with { BlockSize = new BlockSize(512, 512, 65_536), CanFua = Support.Emulate },
        });
        WireClient byName = await server.HaggleAsync();
        WireClient byGo = await server.HaggleAsync();
        await byName.ExportNameAsync();
        await byGo.GoAsync();
        foreach (WireClient client in new[] { byName, byGo })
        {
            Assert.That(client.Flags & (TxFlag.SendFlush | TxFlag.SendFua), Is.EqualTo(TxFlag.SendFlush | TxFlag.SendFua));
            await client.WriteDataAsync(512, new byte[512], CmdFlag.Fua);
            await client.ExpectCallAsync(WireError.Ok, Cmd.Flush);
        }
    }

    [Test, Property("Rule", "S246"), Property("Rule", "S004")]
    public async Task S246_S004_A_session_with_every_option_and_command_begins_each_message_with_a_magic_of_today()
    {
        ServerFixture server = await ServeAsync(WireSession.Plugin());
        WireClient client = server.Connect();

        // The client takes no other magic at the start of a message.
        string words = await new WireSession().RunAsync(client);

        Assert.That(words, Does.Contain("6469736B"), "the name of the export was told");
        Assert.That(server.Plugin.Calls.Select(call => call.Op).Distinct(), Is.EquivalentTo(Enum.GetValues<PluginOp>()));
    }

    [Test, Property("Rule", "S029")]
    [Property("Threat", "N14")]
    public async Task S029_A_session_whose_bytes_arrive_one_by_one_is_the_same_session([Values] bool extended)
    {
        ServerFixture server = await ServeAsync(WireSession.Plugin());
        var session = new WireSession(extended);
        await session.RunAsync(server.Connect());
        string expected = await session.RunAsync(server.Connect());

        string actual = await session.RunAsync(server.Connect(new PipePair(PipePair.EveryByte)));

        Assert.That(actual, Is.EqualTo(expected));
    }

    [Test, Property("Rule", "S155"), Property("Rule", "S029")]
    public async Task S155_S029_A_session_is_the_same_under_every_thread_model(
        [Values] ThreadModel model, [Values] bool blocking)
    {
        ServerFixture server = await ServeAsync(WireSession.Plugin(model, blocking));
        var session = new WireSession();
        await session.RunAsync(server.Connect());
        string expected = await session.RunAsync(server.Connect());

        string actual = await session.RunAsync(server.Connect(new PipePair(PipePair.EveryByte)));

        Assert.That(actual, Is.EqualTo(expected));
    }

    [Test, Property("Rule", "S155")]
    public async Task S155_Under_serialized_retirement_replies_keep_the_order_of_their_requests([Values] bool structured)
    {
        var gate = new Gate();
        ServerFixture server = await ServeAsync(
            new TestPlugin(new TestExport { Before = call => call.Offset == 512 ? gate.PassAsync() : default })
            {
                ThreadModel = ThreadModel.SerializeRetirement,
            });
        WireClient client = await server.TransmitAsync(meta: structured);
        (ushort Command, ulong Offset, uint Length)[] requests =
        [
            (Cmd.Read, 512, 512), (Cmd.Read, 0, 512), (Cmd.Read, 0, 0), (Cmd.Read, ulong.MaxValue, 1), (Cmd.Flush, 0, 0),
            (Cmd.BlockStatus, 0, 512), (Cmd.WriteZeroes, 512, 512), (99, 0, 0), (Cmd.Trim, 0, 512), (Cmd.Read, 512, 1),
        ];
        var sent = new List<WireCall>();
        foreach ((ushort command, ulong offset, uint length) in requests)
        {
            sent.Add(await client.SendRequestAsync(command, offset, length));
        }
        await gate.ArrivedAsync(3);

        gate.Open();

        foreach (WireCall call in sent)
        {
            Assert.That((await client.ReadReplyAsync()).Call, Is.EqualTo(call));
        }
    }

    [TestCaseSource(nameof(Parts))]
    [Property("Rule", "S029")]
    public async Task S029_A_session_that_arrives_in_two_parts_is_the_same_session_wherever_it_is_split(int part)
    {
        ServerFixture server = await ServeAsync(WireSession.Plugin());
        foreach (bool extended in new[] { false, true })
        {
            var session = new WireSession(extended);
            await session.RunAsync(server.Connect());
            string expected = await session.RunAsync(server.Connect());
            for (int at = part; at < session.Bytes.Length; at += Runs)
            {
                string actual = await session.RunAsync(server.Connect(new PipePair(PipePair.Once(at))));
                Assert.That(actual, Is.EqualTo(expected), $"split after {at} of {session.Bytes.Length} bytes");
            }
        }
    }

    [TestCaseSource(nameof(Parts))]
    [Property("Rule", "P27"), Property("Rule", "S029")]
    [Property("Threat", "P27"), Property("Threat", "CVE-2013-7441"), Property("Threat", "CVE-2017-7539")]
    public async Task P27_S029_A_session_may_be_cut_after_any_byte(int part)
    {
        ServerFixture server = await ServeAsync(WireSession.Plugin());
        WireClient bystander = await server.TransmitAsync("disk");
        foreach (WireSession session in new[] { new WireSession(), new WireSession(extended: true) })
        {
            for (int length = part; length < session.Bytes.Length; length += Runs)
            {
                WireClient client = server.Connect();
                await client.SendAsync(session.Bytes.AsMemory(0, length));
                await client.CutAsync();
                await client.ExpectEndAsync();
            }
        }
        await bystander.ExpectAliveAsync(null);
        Assert.That(server.Plugin.Opened - server.Plugin.Closed, Is.EqualTo(1), "only the bystander's context is open");
    }

    [TestCaseSource(nameof(Parts))]
    [Property("Rule", "P26"), Property("Rule", "S029")]
    [Property("Threat", "P26")]
    public async Task P26_S029_A_session_may_be_half_closed_after_any_byte(int part)
    {
        ServerFixture server = await ServeAsync(WireSession.Plugin());
        var session = new WireSession();
        for (int length = part; length < session.Bytes.Length; length += Runs)
        {
            WireClient client = server.Connect();
            await client.SendAsync(session.Bytes.AsMemory(0, length));
            await client.FinishAsync();
            byte[] replies = await client.ReadToEndAsync();
            Assert.That(replies, Has.Length.GreaterThanOrEqualTo(18), $"after {length} bytes");
            NbdDisconnect end = await client.ExpectEndAsync();
            Assert.That(
                end.Reason,
                Is.EqualTo(NbdDisconnectReason.ClientGone).Or.EqualTo(NbdDisconnectReason.ConnectionLost),
                $"after {length} bytes: {end.Detail}");
        }
        Assert.That(server.Plugin.Opened, Is.EqualTo(server.Plugin.Closed));
    }

    private static IEnumerable<int> Parts => Enumerable.Range(0, Runs);
}
