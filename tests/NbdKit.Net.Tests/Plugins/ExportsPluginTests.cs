using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class ExportsPluginTests
{
    private static NbdBackend Bytes(byte value, int size = 4096)
        => NbdBackend.Compose(new ModelPlugin([.. Enumerable.Repeat(value, size)]));

    private static NbdBackend Router(params (string Name, ExportChain Export)[] exports)
        => NbdBackend.Compose(new ExportsPlugin { Exports = exports.ToDictionary(one => one.Name, one => one.Export) });

    [Test]
    public async Task Each_name_opens_its_own_chain()
    {
        await using NbdBackend router = Router(("a", new(Bytes(1))), ("b", new(Bytes(2, 512))));
        await using NextContext a = await router.OpenAsync("a");
        await using NextContext b = await router.OpenAsync("b");

        Assert.That(await TestData.ReadAsync(a, 0, 1), Is.EqualTo(new byte[] { 1 }));
        Assert.That(await TestData.ReadAsync(b, 511, 1), Is.EqualTo(new byte[] { 2 }));
        Assert.That((a.Info.Size, b.Info.Size), Is.EqualTo((4096, 512)));
    }

    [Test]
    public async Task An_unknown_name_and_the_lack_of_a_default_are_refused()
    {
        await using NbdBackend router = Router(("a", new(Bytes(1))));

        Assert.That(
            TestData.Failure(async () => await router.OpenAsync("c")).Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(
            TestData.Failure(async () => await router.OpenAsync()).Error, Is.EqualTo(NbdError.InvalidArgument));
    }

    [Test]
    public async Task The_export_of_the_empty_name_is_the_default()
    {
        await using NbdBackend router = Router(("", new(Bytes(7))));
        await using NextContext disk = await router.OpenAsync();

        Assert.That(await TestData.ReadAsync(disk, 0, 1), Is.EqualTo(new byte[] { 7 }));
    }

    [Test]
    public async Task Exports_are_listed_with_descriptions_and_those_of_the_lister()
    {
        await using NbdBackend router = NbdBackend.Compose(new ExportsPlugin
        {
            Exports = new Dictionary<string, ExportChain> { ["a"] = new(Bytes(1)) { Description = "the first" } },
            Lister = (list, connection, _) =>
            {
                Assert.That(connection, Is.Null);
                list.Add("dynamic");
                return default;
            },
            DefaultExport = "a",
        });
        await router.StartAsync();
        var list = new ExportList();
        await router.ListExportsAsync(list, false, null, default);

        Assert.That(list, Is.EqualTo(new[] { new NbdExport("a", "the first"), new NbdExport("dynamic") }));
    }

    [Test]
    public async Task An_export_of_the_chain_its_description_and_read_only_are_chosen_by_the_entry()
    {
        var plugin = new ModelPlugin(new byte[512]);
        await using NbdBackend router = Router(
            ("a", new(NbdBackend.Compose(plugin)) { ExportName = "inner", ReadOnly = true, Description = "mine" }));
        await using NextContext disk = await router.OpenAsync("a");

        Assert.That(plugin.Opens, Is.EqualTo(new[] { ("inner", true) }));
        Assert.That(disk.Info.CanWrite, Is.False);
        Assert.That(disk.Info.Description, Is.EqualTo("mine"));
    }

    [Test]
    public async Task Clients_see_the_names_and_the_chain_sees_the_client()
    {
        NbdConnection? seen = null;
        int preconnects = 0;
        var hook = new HookFilter(new Hooks
        {
            Open = (context, token) =>
            {
                seen = context.Connection;
                return context.OpenNextAsync(token);
            },
            Preconnect = (next, connection, token) =>
            {
                preconnects++;
                return next.PreconnectAsync(connection, false, token);
            },
        });
        NbdBackend chain = NbdBackend.Compose(new ModelPlugin(new byte[4096]), hook);
        await using ChainServer server = await ChainServer.StartAsync(Router(("a", new(chain)), ("b", new(Bytes(2)))));
        WireClient client = await server.HaggleAsync();
        Assert.That(preconnects, Is.Zero);
        Assert.That((await client.InfoAsync("a")).IsAck);
        Assert.That((await client.InfoAsync("nothing")).IsAck, Is.False);
        await client.GoAsync("a");

        Assert.That(seen, Is.SameAs(server.Server.Connections.Single()));
        Assert.That(preconnects, Is.EqualTo(1));
        await client.WriteDataAsync(1, [5, 6]);
        Assert.That(await client.ReadDataAsync(0, 4), Is.EqualTo(new byte[] { 0, 5, 6, 0 }));
    }

    [Test]
    public async Task A_chain_that_refuses_a_client_refuses_its_export_only()
    {
        var hook = new HookFilter(new Hooks
        {
            Preconnect = (_, _, _) => throw new NbdException(NbdError.PermissionDenied, "not you"),
        });
        await using ChainServer server = await ChainServer.StartAsync(
            Router(("a", new(NbdBackend.Compose(new ModelPlugin(new byte[512]), hook))), ("b", new(Bytes(2)))));
        WireClient client = await server.HaggleAsync();

        OptionResult refused = await client.TryGoAsync("a");
        Assert.That(refused.IsAck, Is.False);
        await client.GoAsync("b");
        Assert.That(await client.ReadDataAsync(0, 1), Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public async Task Chains_start_and_end_with_the_plugin()
    {
        var recorder = new CallRecorder();
        NbdBackend chain = NbdBackend.Compose(
            new DisposablePlugin(new RecordingPlugin(recorder), recorder));
        NbdBackend router = Router(("a", new(chain)), ("same", new(chain)));
        await router.StartAsync();
        await using (await router.OpenAsync("a"))
        {
        }
        await router.DisposeAsync();

        Assert.That(
            recorder.Lines,
            Is.EqualTo(new[]
            {
                "plugin.ready", "plugin.start", "plugin#1.open", "plugin#1.info", "plugin#1.close", "plugin.cleanup",
                "plugin.dispose",
            }));
    }

    [Test]
    public async Task A_chain_that_was_never_started_is_disposed_of()
    {
        var recorder = new CallRecorder();
        NbdBackend router = Router(
            ("a", new(NbdBackend.Compose(new DisposablePlugin(new RecordingPlugin(recorder), recorder)))));
        await router.DisposeAsync();

        Assert.That(recorder.Lines, Is.EqualTo(new[] { "plugin.dispose" }));
    }

    [Test]
    public async Task A_chain_that_does_not_start_fails_the_start_and_ends_the_others()
    {
        var recorder = new CallRecorder();
        var bad = new RecordingPlugin(recorder) { Name = "bad" };
        bad.Script.Fail("start");
        await using NbdBackend router = Router(
            ("a", new(NbdBackend.Compose(new RecordingPlugin(recorder)))), ("b", new(NbdBackend.Compose(bad))));

        TestData.Failure(async () => await router.StartAsync());
        Assert.That(recorder.Count("plugin", "cleanup"), Is.EqualTo(1));
        Assert.That(recorder.Count("bad", "cleanup"), Is.EqualTo(1));
    }

    [Test]
    public async Task A_resolved_chain_ends_with_its_last_context_unless_it_is_kept([Values] bool keep)
    {
        var recorder = new CallRecorder();
        NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(recorder));
        NbdBackend router = NbdBackend.Compose(new ExportsPlugin
        {
            Resolver = (context, _) => new(
                context.ExportName == "x" ? new ExportChain(chain) { KeepRunning = keep } : null),
        });
        NextContext one = await router.OpenAsync("x");
        NextContext two = await router.OpenAsync("x");
        await one.DisposeAsync();
        Assert.That(recorder.Count("plugin", "cleanup"), Is.Zero);
        await two.DisposeAsync();

        Assert.That(recorder.Count("plugin", "cleanup"), Is.EqualTo(keep ? 0 : 1));
        if (keep)
        {
            await using NextContext three = await router.OpenAsync("x");
        }
        else
        {
            Assert.That(TestData.Failure(async () => await router.OpenAsync("x")).Message, Does.Contain("has ended"));
        }
        Assert.That(
            TestData.Failure(async () => await router.OpenAsync("y")).Error, Is.EqualTo(NbdError.InvalidArgument));
        await router.DisposeAsync();
        Assert.That(recorder.Count("plugin", "cleanup"), Is.EqualTo(1));
        recorder.AssertBalanced();
    }

    [Test]
    public async Task A_resolved_chain_that_the_host_uses_lives_on()
    {
        var recorder = new CallRecorder();
        NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(recorder));
        await chain.StartAsync();
        await using (NbdBackend router = NbdBackend.Compose(new ExportsPlugin
        {
            Resolver = (_, _) => new(new ExportChain(chain)),
        }))
        {
            await using (await router.OpenAsync("x"))
            {
            }
            await using (await router.OpenAsync("y"))
            {
            }
        }
        Assert.That(recorder.Count("plugin", "cleanup"), Is.Zero);
        await chain.DisposeAsync();
        Assert.That(recorder.Count("plugin", "cleanup"), Is.EqualTo(1));
    }

    [Test]
    public async Task An_export_that_takes_one_connection_at_a_time_holds_up_no_other()
    {
        NbdBackend narrow = NbdBackend.Compose(
            new ModelPlugin(new byte[512]) { ThreadModel = ThreadModel.SerializeConnections });
        await using NbdBackend router = Router(("narrow", new(narrow)), ("b", new(Bytes(2))));
        NextContext first = await router.OpenAsync("narrow");
        Task<NextContext> second = router.OpenAsync("narrow").AsTask();
        await using (await router.OpenAsync("b"))
        {
        }
        Assert.That(second.IsCompleted, Is.False);
        Assert.That(first.Info.CanMultiConn, Is.False);
        await first.DisposeAsync();
        await (await second.Soon()).DisposeAsync();
    }

    [Test]
    public void Bad_names_are_refused_where_they_are_set()
    {
        Assert.That(() => Router(("a\0", new(Bytes(1)))), Throws.ArgumentException);
        Assert.That(() => new ExportsPlugin { DefaultExport = new string('x', 5000) }, Throws.ArgumentException);
        Assert.That(() => new ExportChain(null!), Throws.ArgumentNullException);
    }
}
