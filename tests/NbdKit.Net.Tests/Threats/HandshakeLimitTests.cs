using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>What a client may cause before it has entered transmission.</summary>
public sealed class HandshakeLimitTests : WireTest
{
    private const int ManyQueries = 30_000;
    private const int ManyRequests = 65_500;
    private const int BareConnects = 1000;
    private const int UnknownNames = 1000;
    private const int Slots = 4;
    private const int RoundsPerEnding = 100;

    [Test, Property("Threat", "P05")]
    public async Task A_handshake_may_cause_so_many_bytes_of_replies_and_then_ends_with_a_word_in_the_log()
    {
        string description = new('d', 4096);
        var plugin = new TestPlugin(new TestExport { Description = description });
        const long Limit = 128 << 10;
        ServerFixture server = await ServeAsync(
            plugin, new NbdServerOptions { MaxHandshakeReplyBytes = Limit, MaxOpensInHandshake = 1000 });
        WireClient client = await server.HaggleAsync();
        long got = 0;
        int asked = 0;
        while (got + 4096 + 200 < Limit)
        {
            OptionResult info = await client.InfoAsync("", InfoType.Description);
            Assert.That(info.IsAck);
            got += info.Replies.Sum(reply => 20 + reply.Data.Length);
            asked++;
        }
        await client.SendOptionAsync(Opt.Info, WireBytes.InfoRequest([], InfoType.Description));
        await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        Assert.That(asked, Is.InRange(25, 32));
        Assert.That(got, Is.LessThanOrEqualTo(Limit));
        Assert.That(server.Log.Entries.Count(entry => entry.Text.Contains("too many replies", StringComparison.Ordinal)), Is.EqualTo(1));
    }

    [Test, Property("Threat", "P05")]
    public async Task A_list_leaves_room_to_enter_and_never_exceeds_the_limit()
    {
        Assert.That(new NbdServerOptions().MaxHandshakeReplyBytes, Is.EqualTo(16 << 20));
        Assert.That(() => new NbdServerOptions { MaxHandshakeReplyBytes = 1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        string description = new('d', 4096);
        var plugin = new TestPlugin
        {
            OnList = (list, _) =>
            {
                for (int i = 0; i < 8000; i++)
                {
                    list.Add($"{i}", description);
                }
            },
        };
        ServerFixture server = await ServeAsync(plugin);
        WireClient client = await server.HaggleAsync();

        OptionResult list = await client.OptAsync(Opt.List);

        Assert.That(list.Type, Is.EqualTo(Rep.TooBig));
        Assert.That(list.Replies.Sum(reply => 20L + reply.Data.Length), Is.InRange(15 << 20, 16 << 20));
        await client.GoAsync();
    }

    [Test, Property("Threat", "P06")]
    public async Task However_often_an_information_is_asked_for_it_comes_once()
    {
        ServerFixture server = await ServeAsync(new TestExport { Description = new string('d', 4096) });
        WireClient client = await server.HaggleAsync();
        foreach (ushort type in new[] { InfoType.Name, InfoType.Description, InfoType.Export, (ushort)77 })
        {
            ushort[] types = [.. Enumerable.Repeat(type, ManyRequests)];
            OptionResult info = await client.OptAsync(Opt.Info, WireBytes.InfoRequest([], types));
            Assert.That(info.IsAck);
            Assert.That(info.Replies, Has.Count.LessThanOrEqualTo(3));
        }
        await client.GoAsync();
    }

    [TestCase(Opt.ListMeta), TestCase(Opt.SetMeta)]
    [Property("Threat", "P07")]
    public async Task Queries_are_counted_before_they_are_read_and_each_context_is_told_once(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        foreach (uint claimed in new uint[] { 2u, 0x7fffffff, 0x80000000, 0xfffffffe, 0xffffffff })
        {
            OptionResult result = await client.OptAsync(option, new WireBytes().U32(0).U32(claimed).U32(0).ToArray());
            Assert.That(result.Type, Is.EqualTo(Rep.Invalid).Or.EqualTo(Rep.TooBig), $"{claimed} queries");
            Assert.That(result.Replies, Has.Count.EqualTo(1));
        }
        await client.ExpectOptAsync(
            Rep.TooBig, option, new WireBytes().U32(0).U32(ManyQueries).Zeroes(4 * ManyQueries).ToArray());
        string[] queries = [.. Enumerable.Repeat("base:", 1024)];
        OptionResult many = await client.OptAsync(option, WireBytes.MetaRequest([], queries));
        Assert.That(many.IsAck);
        Assert.That(many.Before, Has.Count.EqualTo(option == Opt.ListMeta ? 1 : 0));
        await client.ExpectOptAsync(Rep.TooBig, option, WireBytes.MetaRequest([], [.. queries, "base:"]));
        await client.GoAsync();
    }

    [Test, Property("Threat", "P08"), Property("Threat", "CVE-2019-14850")]
    public async Task Nothing_is_opened_for_those_who_only_connect_and_little_for_those_who_only_ask()
    {
        ServerFixture server = await ServeAsync();
        for (int i = 0; i < BareConnects; i++)
        {
            WireClient bare = server.Connect();
            await bare.ReadGreetingAsync();
            await bare.CutAsync();
            await bare.ExpectEndAsync();
        }
        Assert.That(server.Plugin.Opened, Is.Zero);
        WireClient client = await server.HaggleAsync();
        for (int i = 0; i < 4; i++)
        {
            Assert.That((await client.InfoAsync()).IsAck);
        }
        await client.SendOptionAsync(Opt.Info, WireBytes.InfoRequest([]));
        await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        Assert.That(server.Plugin.Opened, Is.EqualTo(4));
    }

    [Test, Property("Threat", "P02")]
    public async Task Bytes_that_trickle_in_do_not_prolong_the_handshake([Values] bool greeted)
    {
        var time = new FakeTimeProvider();
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { TimeProvider = time });
        WireClient client = server.Connect();
        await client.ReadGreetingAsync();
        byte[] bytes = [.. new WireBytes().U32(3).ToArray(), .. WireBytes.Option(Opt.Info, new byte[200])];
        int at = 0;
        if (greeted)
        {
            await client.SendAsync(bytes.AsMemory(0, at = 10));
        }
        for (int second = 0; second < 9; second++)
        {
            await client.SendAsync(bytes.AsMemory(at++, 1));
            time.Advance(TimeSpan.FromSeconds(1));
            Assert.That(client.Ended.IsCompleted, Is.False, $"after {second + 1} s");
        }
        time.Advance(TimeSpan.FromSeconds(1));
        await client.ExpectGoneAsync(NbdDisconnectReason.Timeout);
    }

    [Test, Property("Threat", "P03")]
    public async Task Every_way_to_leave_gives_the_place_back()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { MaxConnections = Slots });
        Func<Task<WireClient>>[] endings =
        [
            async () => await CutAsync(server.Connect()),
            async () => await CutAsync(await server.HaggleAsync()),
            async () => await CutAsync(await server.TransmitAsync()),
            async () => await SentAsync(await server.HaggleAsync(), WireBytes.Option(Opt.Abort, [])),
            async () => await SentAsync(await server.HaggleAsync(), WireBytes.Option(Opt.ExportName, "missing"u8)),
            async () => await SentAsync(await server.HaggleAsync(), new byte[16]),
            async () => await SentAsync(await server.TransmitAsync(), WireBytes.Request(Cmd.Disc, 1, 0, 0)),
            async () => await SentAsync(await server.TransmitAsync(), new byte[28]),
        ];
        for (int i = 0; i < RoundsPerEnding; i++)
        {
            foreach (Func<Task<WireClient>> ending in endings)
            {
                await (await ending()).ExpectEndAsync();
            }
        }
        WireClient[] all = [.. await Task.WhenAll(Enumerable.Range(0, Slots).Select(_ => server.TransmitAsync()))];
        await server.Connect().ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        await all[0].ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Threat", "CVE-2011-1925"), Property("Threat", "nbd-server-4c924b7")]
    public async Task Unknown_and_empty_names_end_at_most_their_own_connection()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("disk")) { DefaultExport = null });
        WireClient bystander = await server.TransmitAsync("disk");
        for (int i = 0; i < UnknownNames; i++)
        {
            byte[] name = i % 2 == 0 ? [] : Encoding.ASCII.GetBytes($"unknown{i}");
            WireClient client = await server.HaggleAsync();
            await client.ExpectOptAsync(Rep.Unknown, Opt.Info, WireBytes.InfoRequest(name));
            await client.ExpectOptAsync(Rep.Unknown, Opt.Go, WireBytes.InfoRequest(name));
            await client.ExpectOptAsync(Rep.Unknown, Opt.ListMeta, WireBytes.MetaRequest(name));
            await client.SendOptionAsync(Opt.ExportName, name);
            await client.ExpectGoneAsync(NbdDisconnectReason.ExportUnavailable);
            if (i % 50 == 0)
            {
                await bystander.ExpectAliveAsync(server.Plugin.Data);
            }
        }
        await bystander.ExpectAliveAsync(server.Plugin.Data);
    }

    private static async Task<WireClient> CutAsync(WireClient client)
    {
        await client.CutAsync();
        return client;
    }

    private static async Task<WireClient> SentAsync(WireClient client, byte[] bytes)
    {
        await client.SendAsync(bytes);
        return client;
    }
}
