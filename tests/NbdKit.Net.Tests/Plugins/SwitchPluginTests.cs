using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class SwitchPluginTests
{
    private static ModelPlugin Bytes(byte value, NbdExportInfo? info = null, int size = 4096)
        => new([.. Enumerable.Repeat(value, size)], info);

    [Test]
    public async Task Requests_go_to_the_chain_of_the_moment()
    {
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1)) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, 1), Is.EqualTo(new byte[] { 1 }));
        NbdBackend second = NbdBackend.Compose(Bytes(2, size: 8192));
        await plugin.ReplaceAsync(second).Soon();

        Assert.That(plugin.Chain, Is.SameAs(second));
        Assert.That(await TestData.ReadAsync(disk, 4095, 1), Is.EqualTo(new byte[] { 2 }));
        Assert.That(disk.Info.Size, Is.EqualTo(4096), "what the client was told stays");
        await using NextContext later = await chain.OpenAsync();
        Assert.That(later.Info.Size, Is.EqualTo(8192));
    }

    [Test]
    public async Task The_old_chain_is_flushed_closed_and_ended()
    {
        var recorder = new CallRecorder();
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(new RecordingPlugin(recorder) { Name = "old" }) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        NextContext disk = await chain.OpenAsync("name");
        await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default);
        recorder.Clear();
        await plugin.ReplaceAsync(NbdBackend.Compose(new RecordingPlugin(recorder) { Name = "new" })).Soon();

        Assert.That(
            recorder.Lines,
            Is.EqualTo(new[]
            {
                "new.ready", "new.start", "old#1.flush", "new#1.open", "new#1.info", "old#1.close", "old.cleanup",
            }));
        Assert.That(recorder.Calls.Single(call => call.Callback == "open").ExportName, Is.EqualTo("name"));
        recorder.Clear();
        await disk.DisposeAsync();
        Assert.That(recorder.Lines, Is.EqualTo(new[] { "new#1.close" }));
    }

    [Test]
    public async Task New_requests_and_opens_wait_until_old_ones_have_ended()
    {
        var gate = new Gate();
        ModelPlugin old = Bytes(1);
        old.Before = call => call.StartsWith("read 0+", StringComparison.Ordinal) ? gate.PassAsync().AsTask() : Task.CompletedTask;
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(old) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Task<byte[]> before = TestData.ReadAsync(disk, 0, 1);
        await gate.ArrivedAsync();
        Task replacing = plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2))).AsTask();
        Task<byte[]> after = TestData.ReadAsync(disk, 1, 1);
        Task<NextContext> opening = chain.OpenAsync().AsTask();
        using var leaving = new CancellationTokenSource();
        Task left = disk.ReadAsync(new byte[1], 2, leaving.Token).AsTask();
        await leaving.CancelAsync();
        Assert.That(async () => await left.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That((replacing.IsCompleted, after.IsCompleted, opening.IsCompleted), Is.EqualTo((false, false, false)));
        gate.Open();

        Assert.That(await before.Soon(), Is.EqualTo(new byte[] { 1 }));
        await replacing.Soon();
        Assert.That(await after.Soon(), Is.EqualTo(new byte[] { 2 }));
        await using NextContext opened = await opening.Soon();
        Assert.That(await TestData.ReadAsync(opened, 0, 1), Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public async Task Giving_up_goes_on_with_the_old_chain()
    {
        var gate = new Gate();
        ModelPlugin old = Bytes(1);
        old.Before = call => call.StartsWith("read 0+", StringComparison.Ordinal) ? gate.PassAsync().AsTask() : Task.CompletedTask;
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(old) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Task<byte[]> before = TestData.ReadAsync(disk, 0, 1);
        await gate.ArrivedAsync();
        using var giveUp = new CancellationTokenSource();
        Task replacing = plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2)), giveUp.Token).AsTask();
        Task<byte[]> after = TestData.ReadAsync(disk, 1, 1);
        await giveUp.CancelAsync();

        Assert.That(async () => await replacing.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(await after.Soon(), Is.EqualTo(new byte[] { 1 }));
        gate.Open();
        Assert.That(await before.Soon(), Is.EqualTo(new byte[] { 1 }));
    }

    private static IEnumerable<TestCaseData> Losses()
    {
        NbdExportInfo all = ModelPlugin.Everything;
        yield return new TestCaseData(all with { CanWrite = false }, "writes");
        yield return new TestCaseData(all with { CanFlush = false }, "flushes");
        yield return new TestCaseData(all with { CanTrim = false }, "trims");
        yield return new TestCaseData(all with { CanZero = Support.None }, "zeroes");
        yield return new TestCaseData(all with { CanFua = Support.None }, "FUA");
        yield return new TestCaseData(all with { CanMultiConn = false }, "several connections");
        yield return new TestCaseData(all with { BlockSize = new BlockSize(512, 512) }, "minimum");
        yield return new TestCaseData(all with { BlockSize = new BlockSize(1, 512, 1024) }, "maximum");
    }

    [TestCaseSource(nameof(Losses))]
    public async Task A_chain_that_offers_less_is_refused_and_the_old_one_goes_on(object info, string reason)
    {
        var recorder = new CallRecorder();
        ModelPlugin old = Bytes(1);
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(old) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext one = await chain.OpenAsync();
        await using NextContext two = await chain.OpenAsync();
        Assert.That(
            async () => await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2, (NbdExportInfo)info))).Soon(),
            Throws.InvalidOperationException.With.Message.Contains(reason));

        Assert.That(await TestData.ReadAsync(one, 0, 1), Is.EqualTo(new byte[] { 1 }));
        Assert.That(await TestData.ReadAsync(two, 0, 1), Is.EqualTo(new byte[] { 1 }));
        await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(3))).Soon();
        Assert.That(await TestData.ReadAsync(two, 0, 1), Is.EqualTo(new byte[] { 3 }));
    }

    [Test]
    public async Task What_is_only_a_hint_may_be_lost()
    {
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1)) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        ModelPlugin poor = Bytes(2, ModelPlugin.Everything with
        {
            CanCache = Support.None,
            CanExtents = false,
            CanFastZero = false,
            CanZero = Support.Emulate,
            CanFua = Support.Emulate,
        });
        await plugin.ReplaceAsync(NbdBackend.Compose(poor)).Soon();
        await disk.CacheAsync(0, 10, default);
        Assert.That(
            (await disk.ExtentsFullAsync(0, 4096, ExtentList.BaseAllocation, default)).Single(),
            Is.EqualTo(new Extent(0, 4096, ExtentStatus.Data)));
        Assert.That(
            TestData.Failure(async () => await disk.ZeroAsync(0, 10, RequestFlags.FastZero, default)).Error,
            Is.EqualTo(NbdError.NotSupported));
        await disk.ZeroAsync(0, 10, RequestFlags.Fua, default);
        Assert.That(poor.Stable[..11], Is.EqualTo(new byte[] { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2 }));
        Assert.That(poor.Offence, Is.Null);
    }

    [Test]
    public async Task A_meta_context_that_clients_were_told_of_must_be_there()
    {
        NbdExportInfo rich = ModelPlugin.Everything with { MetaContexts = [ExtentList.BaseAllocation, "x-y:dirty"] };
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1, rich)) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        foreach (NbdExportInfo poor in new[] { ModelPlugin.Everything, rich with { CanExtents = false } })
        {
            Assert.That(
                async () => await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2, poor))).Soon(),
                Throws.InvalidOperationException.With.Message.Contains("x-y:dirty"));
        }
        await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2, rich))).Soon();
    }

    [Test]
    public async Task A_chain_that_may_block_does_not_block_the_thread_of_the_caller()
    {
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1)) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        using var open = new ManualResetEventSlim();
        ModelPlugin blocking = Bytes(2, ModelPlugin.Everything with { IsBlocking = true });
        blocking.Before = _ =>
        {
            Assert.That(open.Wait(WireClient.Deadline));
            return Task.CompletedTask;
        };
        await plugin.ReplaceAsync(NbdBackend.Compose(blocking)).Soon();
        Task<byte[]> reading = TestData.ReadAsync(disk, 0, 1);
        open.Set();
        Assert.That(await reading.Soon(), Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public async Task A_smaller_chain_is_refused_only_if_somebody_was_told_more()
    {
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1)) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using (await chain.OpenAsync())
        {
            Assert.That(
                async () => await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2, size: 4095))).Soon(),
                Throws.InvalidOperationException.With.Message.Contains("4095"));
        }
        await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2, size: 512))).Soon();
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(512));
    }

    [Test]
    public async Task If_one_context_cannot_be_opened_all_stay_and_the_new_chain_ends()
    {
        var recorder = new CallRecorder();
        var bad = new RecordingPlugin(recorder) { Name = "bad" };
        bad.Script.Fail("open", call => call.Context == 2 ? new IOException("no more") : null);
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1, size: 512)) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext one = await chain.OpenAsync();
        await using NextContext two = await chain.OpenAsync();
        Assert.That(
            async () => await plugin.ReplaceAsync(NbdBackend.Compose(bad)).Soon(),
            Throws.InvalidOperationException.With.Message.Contains("no more").And.InnerException.InstanceOf<IOException>());

        Assert.That(await TestData.ReadAsync(one, 0, 1), Is.EqualTo(new byte[] { 1 }));
        Assert.That(recorder.Count("bad", "cleanup"), Is.EqualTo(1));
        recorder.AssertBalanced();
    }

    [Test]
    public async Task A_chain_that_does_not_start_or_an_old_one_that_does_not_flush_changes_nothing()
    {
        var recorder = new CallRecorder();
        var old = new RecordingPlugin(recorder) { Name = "old" };
        var bad = new RecordingPlugin(recorder) { Name = "bad" };
        bad.Script.Fail("start");
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(old) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            async () => await plugin.ReplaceAsync(NbdBackend.Compose(bad)).Soon(), Throws.InvalidOperationException);
        old.Script.Fail("flush");
        Assert.That(
            async () => await plugin.ReplaceAsync(NbdBackend.Compose(new MemoryPlugin { Size = 65_536 })).Soon(),
            Throws.InvalidOperationException.With.Message.Contains("flushed"));

        await TestData.ReadAsync(disk, 0, 1);
        Assert.That(recorder.Lines[^1], Is.EqualTo("old#1.read"));
    }

    [Test]
    public async Task A_chain_that_takes_one_connection_takes_over_from_one_only()
    {
        NbdBackend Narrow() => NbdBackend.Compose(
            new ModelPlugin(new byte[4096], ModelPlugin.Everything) { ThreadModel = ThreadModel.SerializeConnections });
        var plugin = new SwitchPlugin { Chain = Narrow() };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        NextContext one = await chain.OpenAsync();
        Task<NextContext> waiting = chain.OpenAsync().AsTask();
        await plugin.ReplaceAsync(Narrow()).Soon();
        Assert.That(waiting.IsCompleted, Is.False);
        await one.DisposeAsync();
        NextContext two = await waiting.Soon();
        await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2))).Soon();
        await using NextContext three = await chain.OpenAsync();
        Assert.That(
            async () => await plugin.ReplaceAsync(Narrow()).Soon(),
            Throws.InvalidOperationException.With.Message.Contains("one connection at a time"));
        await two.DisposeAsync();
    }

    [Test]
    public async Task Misuse_is_refused()
    {
        NbdBackend first = NbdBackend.Compose(Bytes(1));
        var plugin = new SwitchPlugin { Chain = first };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        Assert.That(async () => await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2))), Throws.InvalidOperationException);
        await chain.StartAsync();
        Assert.That(async () => await plugin.ReplaceAsync(first), Throws.ArgumentException);
        Assert.That(async () => await plugin.ReplaceAsync(null!), Throws.ArgumentNullException);
        NbdBackend inner = NbdBackend.Compose(Bytes(1), new NofilterFilter()).Next!;
        Assert.That(async () => await plugin.ReplaceAsync(inner), Throws.InvalidOperationException);
    }

    [Test]
    public async Task The_plugin_below_a_filter_is_replaced_under_clients_of_a_server()
    {
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1)) };
        await using ChainServer server = await ChainServer.StartAsync(
            NbdBackend.Compose(plugin, new OffsetFilter { Offset = 1024 }));
        WireClient client = await server.TransmitAsync("");
        Assert.That(await client.ReadDataAsync(0, 1), Is.EqualTo(new byte[] { 1 }));
        await plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2))).Soon();

        Assert.That(await client.ReadDataAsync(3071, 1), Is.EqualTo(new byte[] { 2 }));
    }

    [Test]
    public async Task A_stop_does_not_wait_for_a_chain_that_does_not_open()
    {
        var gate = new Gate();
        var stuck = new RecordingPlugin(new CallRecorder());
        stuck.Script.OnCall = (call, token) => call.Callback == "open" ? gate.PassAsync(token) : default;
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1)) };
        ChainServer server = await ChainServer.StartAsync(NbdBackend.Compose(plugin));
        WireClient client = await server.TransmitAsync("");
        Task replacing = plugin.ReplaceAsync(NbdBackend.Compose(stuck)).AsTask();
        await gate.ArrivedAsync();
        await client.SendRequestAsync(Cmd.Read, 0, 1);
        await client.CutAsync();
        await server.DisposeAsync();
        Assert.That(async () => await replacing.Soon(), Throws.InstanceOf<OperationCanceledException>());
    }

    [Test]
    public async Task A_client_that_leaves_meanwhile_does_not_stop_the_others_from_moving()
    {
        var gate = new Gate();
        int opens = 0;
        var hook = new HookFilter(new Hooks
        {
            Open = async (context, token) =>
            {
                if (Interlocked.Increment(ref opens) == 1)
                {
                    await gate.PassAsync(CancellationToken.None);
                    throw new IOException("this client is gone");
                }
                await context.OpenNextAsync(token);
            },
        });
        var plugin = new SwitchPlugin { Chain = NbdBackend.Compose(Bytes(1)) };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        NextContext leaver = await chain.OpenAsync();
        NextContext stayer = await chain.OpenAsync();
        Task replacing = plugin.ReplaceAsync(NbdBackend.Compose(Bytes(2), hook)).AsTask();
        await gate.ArrivedAsync();
        // Whichever of them is being moved, it leaves before its open fails.
        await leaver.DisposeAsync().Soon();
        await stayer.DisposeAsync().Soon();
        gate.Open();
        await replacing.Soon();
        await using NextContext later = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(later, 0, 1), Is.EqualTo(new byte[] { 2 }));
    }
}
