using System.Text;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class TlsFallbackFilterTests
{
    private static readonly NbdServerOptions Selective = new()
    {
        Tls = new NbdServerTls(TestCertificates.Server) { IsRequired = false },
    };

    [Test]
    public async Task Plain_text_gets_the_message_under_every_name_and_opens_nothing_below()
    {
        var plugin = new TestPlugin(new TestExport("disk")) { DefaultExport = "disk" };
        await using NbdServer server = Serve(plugin, new TlsFallbackFilter { Message = "Grüße" });
        foreach (string name in new[] { "", "disk", "no such thing" })
        {
            await using WireClient client = await ConnectAsync(server);
            OptionResult list = await client.OptAsync(Opt.List);
            Assert.That(list.Before.Single().Data, Is.EqualTo(new byte[4]), "only the default export, named ''");
            await client.StructuredAsync();
            await client.SetMetaAsync(name, "base:allocation");
            await client.GoAsync(name);
            Assert.That(client.Size, Is.EqualTo(512));
            Assert.That(client.Flags & TxFlag.ReadOnly, Is.Not.Zero);
            byte[] expected = [.. Encoding.UTF8.GetBytes("Grüße"), .. new byte[512 - 7]];
            Assert.That(await client.ReadDataAsync(0, 512), Is.EqualTo(expected));
            Assert.That(await client.ReadDataAsync(3, 100), Is.EqualTo(expected[3..103]));
            foreach (ushort command in new[] { Cmd.Trim, Cmd.WriteZeroes })
            {
                await client.ExpectCallAsync(WireError.Perm, command, 0, 512);
            }
            await client.ExpectCallAsync(WireError.Perm, Cmd.Write, 0, 1, 0, [1]);
            await client.ExpectCallAsync(WireError.Ok, Cmd.Cache, 0, 512);
            if (client.ContextIds.Count > 0)
            {
                await client.ExpectCallAsync(WireError.Ok, Cmd.BlockStatus, 0, 512);
            }
        }
        Assert.That(plugin.Opened, Is.Zero);
        Assert.That(plugin.Calls, Is.Empty);
    }

    [Test]
    public async Task Inside_tls_everything_is_as_below()
    {
        var plugin = new TestPlugin(new TestExport("disk")) { DefaultExport = "disk" };
        await using NbdServer server = Serve(plugin, new TlsFallbackFilter());
        await using WireClient client = await ConnectAsync(server);
        Assert.That((await client.InfoAsync()).Size, Is.EqualTo(512));
        WireClient inside = await client.StartTlsAsync();
        OptionResult list = await inside.OptAsync(Opt.List);
        Assert.That(Encoding.UTF8.GetString(list.Before.Single().Data.AsSpan(4)), Is.EqualTo("disk"));
        Assert.That((await inside.InfoAsync("no such thing")).Type, Is.EqualTo(Rep.Unknown));
        await inside.GoAsync();
        await inside.WriteDataAsync(5, [1, 2, 3]);
        await inside.ExpectAliveAsync(plugin.Data);
        Assert.That(plugin.Data[5..8], Is.EqualTo(new byte[] { 1, 2, 3 }));
    }

    [Test]
    public async Task Shared_contexts_are_what_their_opener_says()
    {
        var plugin = new TestPlugin();
        await using NbdServer server = Serve(plugin, new OpenonceFilter(), new TlsFallbackFilter());
        await using WireClient client = await ConnectAsync(server);
        Assert.That((await client.InfoAsync()).Size, Is.EqualTo(512));
        await (await client.StartTlsAsync()).GoAsync();
        Assert.That(plugin.Opened, Is.EqualTo(1));
    }

    [Test]
    public async Task The_host_itself_gets_what_is_below()
    {
        await using NbdBackend chain = NbdBackend.Compose(new TestPlugin(), new TlsFallbackFilter());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(64 << 10));
    }

    [Test]
    public void A_chain_for_one_connection_at_a_time_is_refused()
    {
        NbdServer server = Serve(new TestPlugin { ThreadModel = ThreadModel.SerializeConnections }, new TlsFallbackFilter());
        Assert.That(async () => await server.StartAsync(), Throws.InvalidOperationException.With.Message.Contains("tls-fallback"));
    }

    [Test]
    public void A_message_that_does_not_fit_is_refused()
    {
        Assert.That(() => new TlsFallbackFilter { Message = new string('x', 513) }, Throws.ArgumentException);
        Assert.That(
            () => TlsFallbackFilter.Entry.Create(new NbdParameters("tls-fallback", [new("tlsreadme", new string('ü', 257))])),
            Throws.ArgumentException.With.Message.Contains("tlsreadme"));
        var full = (TlsFallbackFilter)TlsFallbackFilter.Entry.Create(
            new NbdParameters("tls-fallback", [new("tlsreadme", new string('x', 512))]));
        Assert.That(full.Message, Has.Length.EqualTo(512));
    }

    private static NbdServer Serve(INbdPlugin plugin, params INbdFilter[] filters)
        => new(NbdBackend.Compose(plugin, filters), Selective);

    private static async Task<WireClient> ConnectAsync(NbdServer server)
    {
        var pipes = new PipePair();
        var client = new WireClient(pipes.Client, server.ServeAsync(pipes.Server));
        await client.GreetAsync();
        return client;
    }
}
