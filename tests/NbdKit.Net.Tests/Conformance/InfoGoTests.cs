using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_OPT_INFO and NBD_OPT_GO: grammar, errors, and how often the plugin is opened.</summary>
public sealed class InfoGoTests : WireTest
{
    private static readonly uint[] Both = [Opt.Info, Opt.Go];

    [TestCaseSource(nameof(Both))]
    [Property("Rule", "S085")]
    public async Task S085_A_name_that_leaves_the_option_is_invalid(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        foreach (uint length in new uint[] { 1, 5, 6, 4096, 0x7fffffff, 0xfffffffa, 0xffffffff })
        {
            await client.ExpectOptAsync(Rep.Invalid, option, new WireBytes().U32(length).Zeroes(2).ToArray());
        }
        await client.ExpectOptAsync(Rep.Invalid, option, new WireBytes().U32(9).Raw("12345678"u8).U16(0).ToArray());
        await client.GoAsync();
    }

    [TestCaseSource(nameof(Both))]
    [Property("Rule", "S086"), Property("Rule", "S115")]
    public async Task S086_S115_The_count_of_requests_must_fill_the_rest_exactly(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        for (int length = 0; length < 6; length++)
        {
            await client.ExpectOptAsync(Rep.Invalid, option, new byte[length]);
        }
        byte[][] wrong =
        [
            new WireBytes().U32(0).U16(1).ToArray(),
            new WireBytes().U32(0).U16(2).U16(0).ToArray(),
            new WireBytes().U32(0).U16(0).U16(0).ToArray(),
            new WireBytes().U32(0).U16(1).U16(0).U16(0).ToArray(),
            new WireBytes().U32(0).U16(0).Raw(0).ToArray(),
            new WireBytes().U32(0).U16(1).U16(0).Raw(0).ToArray(),
            new WireBytes().U32(0).U16(0xffff).U16(0).ToArray(),
        ];
        foreach (byte[] data in wrong)
        {
            await client.ExpectOptAsync(Rep.Invalid, option, data);
        }
        await client.GoAsync();
    }

    [Test, Property("Rule", "S087")]
    public async Task S087_Unknown_information_requests_are_ignored()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        OptionResult info = await client.InfoAsync("", 0xffff, InfoType.Export, 4, InfoType.Name, 1000);

        Assert.That(info.IsAck);
        Assert.That(info.Before.Select(reply => reply.InfoType), Is.EquivalentTo(new[] { InfoType.Export, InfoType.Name }));
    }

    [TestCaseSource(nameof(Both))]
    [Property("Rule", "S088"), Property("Rule", "S089"), Property("Rule", "S107"), Property("Rule", "S004")]
    public async Task S088_S089_S107_S004_Success_tells_size_and_flags_even_if_nobody_asked(uint option)
    {
        ServerFixture server = await ServeAsync(new TestExport { Size = 0x0102030405060708 });
        WireClient client = await server.HaggleAsync();

        OptionResult result = await client.OptAsync(option, WireBytes.InfoRequest([]));

        Assert.That(result.Replies.Select(reply => reply.Type), Is.EqualTo(new[] { Rep.Info, Rep.Ack }));
        Assert.That(
            result.Replies[0].Data,
            Is.EqualTo(new WireBytes().U16(InfoType.Export).U64(0x0102030405060708).U16(0x0d6d).ToArray()));
        Assert.That(result.Final.Data, Is.Empty);
    }

    [TestCaseSource(nameof(Both))]
    [Property("Rule", "S090"), Property("Rule", "S105")]
    public async Task S090_S105_An_unknown_export_is_unknown_without_any_information_before_it(uint option)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        await client.ExpectOptAsync(Rep.Unknown, option, WireBytes.InfoRequest("missing"u8, 0, 1, 2, 3));

        await client.GoAsync();
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S092")]
    public async Task S092_INFO_and_GO_with_the_same_request_tell_the_same()
    {
        ServerFixture server = await ServeAsync(new TestExport("disk")
        {
            Description = "a disk",
            Configure = info => info with { BlockSize = new BlockSize(512, 4096, 1 << 20) },
        });
        WireClient client = await server.HaggleAsync();

        OptionResult info = await client.InfoAsync("disk", 3, 2, 1, 0, 99);
        OptionResult go = await client.TryGoAsync("disk", 3, 2, 1, 0, 99);

        Assert.That(info.IsAck && go.IsAck);
        Assert.That(info.Before, Has.Count.EqualTo(4));
        Assert.That(
            go.Before.Select(reply => Convert.ToHexString(reply.Data)),
            Is.EquivalentTo(info.Before.Select(reply => Convert.ToHexString(reply.Data))));
    }

    [TestCase(1u)]
    [TestCase(3u)]
    [Property("Rule", "S093")]
    public async Task S093_Transmission_begins_right_after_the_ACK_of_GO_without_padding(uint clientFlags)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync(clientFlags);
        byte[] go = WireBytes.Option(Opt.Go, WireBytes.InfoRequest([]));
        WireCall read = client.Expect(Cmd.Read, 0, 16);

        await client.SendAsync((byte[])[.. go, .. WireBytes.Request(Cmd.Read, read.Cookie, 0, 16)]);

        Assert.That((await client.ReadOptionResultAsync(Opt.Go)).IsAck);
        Assert.That((await client.ReadReplyAsync()).Data, Is.EqualTo(server.Plugin.Data[..16]));
    }

    [Test, Property("Rule", "S094")]
    public async Task S094_INFO_does_not_enter_transmission()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        Assert.That((await client.InfoAsync()).IsAck);

        Assert.That((await client.OptAsync(Opt.List)).IsAck);
        await client.GoAsync();
    }

    [Property("Rule", "S106")]
    [TestCase(NbdError.IoError, Rep.Unknown)]
    [TestCase(NbdError.InvalidArgument, Rep.Unknown)]
    [TestCase(NbdError.Shutdown, Rep.Shutdown)]
    [TestCase(NbdError.PermissionDenied, Rep.Policy)]
    public async Task S106_A_plugin_that_refuses_to_open_gives_one_error_with_its_message(NbdError error, uint type)
    {
        var plugin = new TestPlugin { OnOpen = (_, _) => throw new NbdException(error, "the moon is full") };
        ServerFixture server = await ServeAsync(plugin);
        WireClient client = await server.HaggleAsync();
        foreach (uint option in Both)
        {
            OptionReply reply = await client.ExpectOptAsync(type, option, WireBytes.InfoRequest([], 0, 1, 2, 3));
            Assert.That(reply.Text, Does.Contain("the moon is full"));
        }
        plugin.OnOpen = null;
        await client.GoAsync();
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S106")]
    public async Task S106_Any_exception_while_opening_gives_one_error_and_no_details_of_the_server()
    {
        Exception[] exceptions =
        [
            new IOException("/etc/shadow"), new InvalidOperationException(), new OperationCanceledException(),
            new NotSupportedException(), new UnauthorizedAccessException(), new TimeoutException(),
            new ObjectDisposedException("x"), new OutOfMemoryException(),
        ];
        var plugin = new TestPlugin();
        ServerFixture server = await ServeAsync(plugin);
        WireClient client = await server.HaggleAsync();
        foreach (Exception exception in exceptions)
        {
            plugin.OnOpen = (_, _) => throw exception;
            OptionResult result = await client.TryGoAsync();
            Assert.That(result.Replies, Has.Count.EqualTo(1), exception.GetType().Name);
            Assert.That(result.Type, Is.EqualTo(Rep.Unknown).Or.EqualTo(Rep.Policy), exception.GetType().Name);
            Assert.That(result.Final.Text, Does.Not.Contain("   at "), "no stack trace");
        }
        plugin.OnOpen = null;
        await client.GoAsync();
    }

    [Test, Property("Rule", "S106"), Property("Rule", "S108")]
    public async Task S106_S108_An_export_that_cannot_say_what_it_is_is_closed_again()
    {
        bool broken = true;
        var export = new TestExport
        {
            Configure = info => broken ? throw new NbdException(NbdError.IoError, "the label is gone") : info,
        };
        ServerFixture server = await ServeAsync(export);
        WireClient client = await server.HaggleAsync();
        foreach (uint option in Both)
        {
            await client.ExpectOptAsync(Rep.Unknown, option, WireBytes.InfoRequest([]));
        }
        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((2, 2)));
        broken = false;
        await client.GoAsync();
    }

    [Test, Property("Rule", "S108"), Property("Rule", "P08")]
    public async Task S108_P08_The_plugin_is_opened_once_for_each_INFO_and_GO_and_never_before()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = server.Connect();
        await client.GreetAsync();
        await client.OptAsync(Opt.List);
        await client.StructuredAsync();
        Assert.That(server.Plugin.Opened, Is.Zero);

        await client.InfoAsync();
        await client.ExpectHagglingAsync();
        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((1, 1)));
        await client.TryGoAsync("missing");
        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((1, 1)));
        await client.GoAsync();

        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((2, 1)));
    }

    [Test, Property("Rule", "S108")]
    public async Task S108_An_export_that_was_asked_for_its_contexts_is_entered_without_opening_it_again()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("a"), new TestExport("b")));
        WireClient client = await server.HaggleAsync();
        await client.StructuredAsync();
        await client.ListMetaAsync("a");
        await client.SetMetaAsync("a", "base:allocation");
        await client.InfoAsync("a");
        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((1, 0)));

        await client.SetMetaAsync("b", "base:allocation");
        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((2, 1)));
        await client.GoAsync("b");
        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((2, 1)));

        await client.CallAsync(Cmd.BlockStatus, 0, 512);
        WireClient other = await server.HaggleAsync();
        await other.StructuredAsync();
        await other.SetMetaAsync("a", "base:allocation");
        await other.OptAsync(Opt.Abort);
        await other.ExpectEndAsync(NbdDisconnectReason.ClientDone);
        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((3, 2)));
    }

    [Test, Property("Rule", "P08")]
    public async Task P08_Repeated_questions_about_contexts_run_out_of_opens_and_end_the_connection()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("a"), new TestExport("b")));
        WireClient client = await server.HaggleAsync();
        for (int i = 0; i < 4; i++)
        {
            Assert.That((await client.ListMetaAsync(i % 2 == 0 ? "a" : "b")).IsAck);
        }

        await client.SendOptionAsync(Opt.ListMeta, WireBytes.MetaRequest("a"u8));

        await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        Assert.That((server.Plugin.Opened, server.Plugin.Closed), Is.EqualTo((4, 4)));
    }

    [Test, Property("Rule", "P08")]
    public async Task P08_Repeated_INFO_runs_out_of_opens_and_ends_the_connection()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        for (int i = 0; i < 4; i++)
        {
            Assert.That((await client.InfoAsync()).IsAck);
        }

        await client.SendOptionAsync(Opt.Info, WireBytes.InfoRequest([]));

        await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
        Assert.That(server.Plugin.Opened, Is.EqualTo(4));
    }

    [Test, Property("Rule", "P08")]
    public async Task P08_Repeated_INFO_of_an_unknown_export_runs_out_of_opens_and_ends_the_connection()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        for (int i = 0; i < 4; i++)
        {
            Assert.That((await client.InfoAsync("unknown")).Type, Is.EqualTo(Rep.Unknown));
        }

        await client.SendOptionAsync(Opt.Info, WireBytes.InfoRequest("unknown"u8));

        await client.ExpectGoneAsync(NbdDisconnectReason.LimitExceeded);
    }

    [Test, Property("Rule", "P08")]
    public async Task P08_GO_is_possible_when_all_opens_of_INFO_are_used_up()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        for (int i = 0; i < 4; i++)
        {
            Assert.That((await client.InfoAsync()).IsAck);
        }

        await client.GoAsync();

        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S108")]
    public async Task S108_Legal_but_unusual_orders_of_options_are_all_answered()
    {
        ServerFixture server = await ServeAsync(new TestPlugin(new TestExport("a"), new TestExport("b")));
        WireClient client = await server.HaggleAsync();
        await client.InfoAsync("a");
        await client.StructuredAsync();
        await client.InfoAsync("b");
        await client.SetMetaAsync("a", "base:allocation");
        await client.InfoAsync("a");
        await client.ListMetaAsync("b");
        await client.TryGoAsync("c");
        await client.InfoAsync("b");
        OptionResult selected = await client.SetMetaAsync("b", "base:allocation");
        Assert.That(selected.Before, Has.Count.EqualTo(1));

        await client.GoAsync("b");

        await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
        Assert.That(server.Plugin.Opened - server.Plugin.Closed, Is.EqualTo(1));
    }
}
