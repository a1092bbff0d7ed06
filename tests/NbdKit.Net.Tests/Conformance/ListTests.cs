using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>NBD_OPT_LIST and the options that were withdrawn or are not there: NBD_OPT_PEEK_EXPORT, NBD_OPT_STARTTLS.</summary>
public sealed class ListTests : WireTest
{
    [TestCase(0)]
    [TestCase(1)]
    [TestCase(1000)]
    [Property("Rule", "S048"), Property("Rule", "S051")]
    public async Task S048_S051_LIST_tells_every_export_and_each_of_them_can_be_opened(int count)
    {
        TestExport[] exports = [.. Enumerable.Range(0, count).Select(i => new TestExport($"disk {i}", 512))];
        var plugin = new TestPlugin(exports);
        if (count == 0)
        {
            plugin.OnList = (_, _) => { };
        }
        ServerFixture server = await ServeAsync(plugin);
        WireClient client = await server.HaggleAsync();

        OptionResult list = await client.OptAsync(Opt.List);

        Assert.That(list.IsAck);
        Assert.That(list.Final.Data, Is.Empty);
        Assert.That(list.Before.Select(reply => reply.Type), Has.All.EqualTo(Rep.Server));
        Assert.That(list.Before.Select(reply => reply.ServerName), Is.EqualTo(exports.Select(export => export.Name)));
        foreach (OptionReply reply in list.Before)
        {
            Assert.That((await client.InfoAsync(reply.ServerName)).IsAck, reply.ServerName);
        }
        Assert.That(plugin.Opened, Is.EqualTo(count), "LIST opens nothing");
    }

    [TestCase(1)]
    [TestCase(4096)]
    [Property("Rule", "S049")]
    public async Task S049_LIST_with_data_is_invalid_and_does_not_count(int length)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        await client.ExpectOptAsync(Rep.Invalid, Opt.List, new byte[length]);

        Assert.That((await client.OptAsync(Opt.List)).Replies, Has.Count.EqualTo(2));
    }

    [TestCase(0)]
    [TestCase(1)]
    [TestCase(4096)]
    [Property("Rule", "S050"), Property("Rule", "S098")]
    public async Task S050_S098_The_description_follows_the_name(int length)
    {
        string description = new('d', length);
        ServerFixture server = await ServeAsync(new TestExport("näme") { Description = description });
        WireClient client = await server.HaggleAsync();

        OptionReply reply = (await client.OptAsync(Opt.List)).Replies[0];

        byte[] name = Encoding.UTF8.GetBytes("näme");
        Assert.That(
            reply.Data,
            Is.EqualTo(new WireBytes().U32((uint)name.Length).Raw(name).Raw(Encoding.UTF8.GetBytes(description)).ToArray()));
        OptionResult info = await client.InfoAsync("näme", InfoType.Description);
        Assert.That(info.Info(InfoType.Description)?.InfoText ?? "", Is.EqualTo(description));
    }

    [Test, Property("Rule", "S052")]
    public async Task S052_LIST_can_be_forbidden()
    {
        ServerFixture server = await ServeAsync(options: new NbdServerOptions { OfferList = false });
        WireClient client = await server.HaggleAsync();

        await client.ExpectOptAsync(Rep.Policy, Opt.List);

        await client.GoAsync();
    }

    [Test, Property("Rule", "P05")]
    public async Task P05_A_second_LIST_is_refused()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        Assert.That((await client.OptAsync(Opt.List)).IsAck);

        await client.ExpectOptAsync(Rep.Policy, Opt.List);

        await client.GoAsync();
    }

    [Test, Property("Rule", "P05"), Property("Rule", "S048")]
    public async Task P05_S048_A_long_list_waits_for_a_client_that_reads_slowly()
    {
        var plugin = new TestPlugin
        {
            OnList = (list, _) =>
            {
                for (int i = 0; i < 1000; i++)
                {
                    list.Add($"{i:d4}", new string('d', 4000));
                }
            },
        };
        ServerFixture server = await ServeAsync(plugin);
        WireClient client = await server.HaggleAsync(pipes: new PipePair(serverOutputLimit: 16 << 10));

        OptionResult list = await client.OptAsync(Opt.List);

        Assert.That(list.Before.Select(reply => reply.ServerName), Is.EqualTo(Enumerable.Range(0, 1000).Select(i => $"{i:d4}")));
    }

    [Test, Property("Rule", "P05")]
    public async Task P05_What_a_list_sends_is_bounded_and_a_longer_one_ends_in_an_error()
    {
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
        Assert.That(list.Before.Sum(reply => reply.Data.Length), Is.LessThanOrEqualTo(17 << 20));
        await client.GoAsync();
    }

    [Test, Property("Rule", "S048"), Property("Rule", "S023")]
    public async Task S048_S023_A_plugin_that_cannot_list_gives_one_error_and_the_session_goes_on()
    {
        var plugin = new TestPlugin { OnList = (_, _) => throw new InvalidOperationException("no list today") };
        ServerFixture server = await ServeAsync(plugin);
        WireClient client = await server.HaggleAsync();

        OptionResult list = await client.OptAsync(Opt.List);

        Assert.That(list.Replies, Has.Count.EqualTo(1));
        Assert.That(list.Final.IsError);
        await client.GoAsync();
    }

    [Test, Property("Rule", "S053")]
    public async Task S053_A_plugin_can_leave_out_exports_while_the_client_is_in_plaintext()
    {
        var plugin = new TestPlugin(new TestExport("open"), new TestExport("secret"))
        {
            OnList = (list, connection) =>
            {
                list.Add("open");
                if (connection!.IsTls)
                {
                    list.Add("secret");
                }
            },
        };
        ServerFixture server = await ServeAsync(plugin);
        WireClient client = await server.HaggleAsync();

        OptionResult list = await client.OptAsync(Opt.List);

        Assert.That(list.Before.Select(reply => reply.ServerName), Is.EqualTo(new[] { "open" }));
    }

    [TestCase(0)]
    [TestCase(100)]
    [Property("Rule", "S054")]
    public async Task S054_PEEK_EXPORT_is_unsupported(int length)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        await client.ExpectOptAsync(Rep.Unsup, Opt.PeekExport, new byte[length]);

        await client.GoAsync();
    }

    [TestCase(0)]
    [TestCase(1)]
    [TestCase(65_536)]
    [Property("Rule", "S062"), Property("Rule", "S063"), Property("Rule", "S060")]
    public async Task S062_S063_S060_Without_TLS_STARTTLS_is_refused_and_the_session_goes_on_in_plaintext(int length)
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();

        OptionResult result = await client.OptAsync(Opt.StartTls, new byte[length]);

        Assert.That(result.Replies, Has.Count.EqualTo(1));
        Assert.That(result.Type, length == 0 ? Is.EqualTo(Rep.Unsup) : Is.EqualTo(Rep.Unsup).Or.EqualTo(Rep.Invalid));
        await client.GoAsync();
        await client.ExpectAliveAsync(server.Plugin.Data);
    }

    [Test, Property("Rule", "S063")]
    public async Task S063_Without_TLS_no_option_is_ever_answered_with_TLS_REQD()
    {
        ServerFixture server = await ServeAsync();
        WireClient client = await server.HaggleAsync();
        foreach (uint option in new uint[] { 0, 3, 4, 5, 6, 8, 9, 10, 11, 12, 0x7fffffff, 7 })
        {
            OptionResult missing = await client.OptAsync(option, WireBytes.InfoRequest("missing"u8));
            Assert.That(missing.Type, Is.Not.EqualTo(Rep.TlsRequired), $"option {option}");
        }
    }
}
