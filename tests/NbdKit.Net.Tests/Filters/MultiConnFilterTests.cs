using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public class MultiConnFilterTests
{
    private static readonly CancellationToken None = CancellationToken.None;
    private static readonly byte[] Data = new byte[1];

    private readonly CallRecorder _calls = new();
    private readonly RecordingPlugin _plugin;

    public MultiConnFilterTests()
        => _plugin = new RecordingPlugin(_calls) { Info = (_, info) => info with { CanMultiConn = false } };

    [TestCase(MultiConnMode.Auto, true, true, ThreadModel.Parallel, true, Support.Native)]
    [TestCase(MultiConnMode.Auto, false, true, ThreadModel.Parallel, true, Support.Emulate)]
    [TestCase(MultiConnMode.Auto, false, true, ThreadModel.SerializeAllRequests, true, Support.Emulate)]
    [TestCase(MultiConnMode.Auto, false, true, ThreadModel.SerializeConnections, false, Support.Native)]
    [TestCase(MultiConnMode.Auto, false, false, ThreadModel.Parallel, false, Support.Native)]
    [TestCase(MultiConnMode.Emulate, true, true, ThreadModel.Parallel, true, Support.Emulate)]
    [TestCase(MultiConnMode.Plugin, true, true, ThreadModel.Parallel, true, Support.Native)]
    [TestCase(MultiConnMode.Plugin, false, true, ThreadModel.Parallel, false, Support.Native)]
    [TestCase(MultiConnMode.Disable, true, true, ThreadModel.Parallel, false, Support.Native)]
    [TestCase(MultiConnMode.Unsafe, false, false, ThreadModel.Parallel, true, Support.Native)]
    public async Task What_each_mode_promises(
        MultiConnMode mode, bool below, bool canFlush, ThreadModel model, bool expected, Support fua)
    {
        var plugin = new RecordingPlugin(_calls)
        {
            ThreadModel = model,
            Info = (_, info) => info with { CanMultiConn = below, CanFlush = canFlush },
        };
        await using NbdBackend chain = NbdBackend.Compose(plugin, new MultiConnFilter { Mode = mode });
        await using NextContext disk = await chain.OpenAsync("disk");
        Assert.That((disk.Info.CanMultiConn, disk.Info.CanFua, disk.Info.CanFlush), Is.EqualTo((expected, fua, canFlush)));
    }

    [Test]
    public async Task Emulation_needs_a_flush_where_anything_can_be_written()
    {
        _plugin.Info = (_, info) => info with { CanMultiConn = false, CanFlush = false };
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new MultiConnFilter { Mode = MultiConnMode.Emulate });
        NbdException e = TestData.Failure(async () => await chain.OpenAsync("disk"));
        Assert.That((e.Error, e.Message), Is.EqualTo(
            (NbdError.InvalidArgument, "multi-conn cannot be emulated over a layer that cannot flush")));
        await using NextContext disk = await chain.OpenAsync("disk", readOnly: true);
        Assert.That((disk.Info.CanMultiConn, disk.Info.CanFlush), Is.EqualTo((true, false)));
        await disk.ReadAsync(Data, 0, None);
    }

    [TestCase(MultiConnMode.Plugin)]
    [TestCase(MultiConnMode.Disable)]
    [TestCase(MultiConnMode.Unsafe)]
    public async Task Modes_that_do_not_emulate_pass_every_flush_to_its_own_connection(MultiConnMode mode)
    {
        await using Disks disks = await OpenAsync(2, new MultiConnFilter { Mode = mode });
        await disks[0].WriteAsync(Data, 0, RequestFlags.Fua, None);
        Assert.That(_calls.Calls.Single(call => call.Callback == "write").Flags, Is.EqualTo(RequestFlags.Fua));
        await disks[1].FlushAsync(None);
        await disks[1].FlushAsync(None);
        Assert.That(Flushes(), Is.EqualTo(new[] { 2, 2 }));
    }

    [Test]
    public async Task Fast_tracking_flushes_all_connections_if_anything_was_written_and_none_otherwise()
    {
        await using Disks disks = await OpenAsync(3, new MultiConnFilter());
        await disks[0].ReadAsync(Data, 0, None);
        await disks[0].FlushAsync(None);
        Assert.That(Flushes(), Is.Empty, "nothing was written");
        foreach (Func<ValueTask> change in new Func<ValueTask>[]
        {
            () => disks[2].WriteAsync(Data, 0, RequestFlags.None, None),
            () => disks[2].TrimAsync(0, 1, RequestFlags.None, None),
            () => disks[2].ZeroAsync(0, 1, RequestFlags.None, None),
        })
        {
            await change();
            await disks[0].FlushAsync(None);
            Assert.That(Flushes(), Is.EquivalentTo(new[] { 1, 2, 3 }));
            await disks[1].FlushAsync(None);
            Assert.That(Flushes(), Is.Empty, "all are clean");
        }
    }

    [Test]
    public async Task Tracking_by_connection_flushes_who_wrote_first_and_then_who_may_be_behind()
    {
        await using Disks disks = await OpenAsync(4, new MultiConnFilter { TrackDirty = MultiConnTracking.Connection });
        await disks[0].WriteAsync(Data, 0, RequestFlags.None, None);
        await disks[0].FlushAsync(None);
        Assert.That(Flushes(), Is.EqualTo(new[] { 1 }), "one that is alone with what it does is flushed once");

        await disks[1].ReadAsync(Data, 0, None);
        await disks[2].WriteAsync(Data, 0, RequestFlags.None, None);
        await disks[3].FlushAsync(None);
        Assert.That(Flushes(), Is.EqualTo(new[] { 3, 2 }), "the reader may have kept what the writer has replaced");
        await disks[3].FlushAsync(None);
        Assert.That(Flushes(), Is.Empty);

        await disks[2].CacheAsync(0, 1, None);
        await disks[2].FlushAsync(None);
        Assert.That(Flushes(), Is.Empty, "what it did not see is its own");
        await disks[3].WriteAsync(Data, 0, RequestFlags.None, None);
        await disks[0].FlushAsync(None);
        Assert.That(Flushes(), Is.EqualTo(new[] { 4, 3 }));
    }

    [Test]
    public async Task Without_tracking_every_flush_reaches_every_connection()
    {
        await using Disks disks = await OpenAsync(3, new MultiConnFilter { TrackDirty = MultiConnTracking.Off });
        await disks[1].FlushAsync(None);
        await disks[1].FlushAsync(None);
        Assert.That(Flushes(), Is.EquivalentTo(new[] { 1, 2, 3, 1, 2, 3 }));
    }

    [Test]
    public async Task FUA_becomes_a_flush_of_all()
    {
        await using Disks disks = await OpenAsync(2, new MultiConnFilter());
        await disks[0].WriteAsync(Data, 0, RequestFlags.None, None);
        await disks[1].WriteAsync(Data, 1, RequestFlags.Fua, None);
        Assert.That(_calls.Calls.Last(call => call.Callback == "write").Flags, Is.EqualTo(RequestFlags.None));
        Assert.That(Flushes(), Is.EquivalentTo(new[] { 1, 2 }));
        await disks[1].ZeroAsync(0, 1, RequestFlags.Fua, None);
        await disks[1].TrimAsync(0, 1, RequestFlags.Fua, None);
        Assert.That(Flushes(), Is.EquivalentTo(new[] { 1, 2, 1, 2 }));
    }

    [Test]
    public async Task Exports_of_different_names_are_flushed_together_unless_told_otherwise([Values] bool byName)
    {
        await using NbdBackend chain = NbdBackend.Compose(_plugin, new MultiConnFilter { ByExportName = byName });
        await using NextContext a = await chain.OpenAsync("a");
        await using NextContext b = await chain.OpenAsync("b");
        await a.WriteAsync(Data, 0, RequestFlags.None, None);
        await b.FlushAsync(None);
        Assert.That(Flushes(), byName ? Is.Empty : Is.EquivalentTo(new[] { 1, 2 }));
        await a.FlushAsync(None);
        Assert.That(Flushes(), byName ? Is.EqualTo(new[] { 1 }) : Is.Empty);
    }

    [Test]
    public async Task Connections_are_flushed_at_the_same_time_and_others_go_on_meanwhile()
    {
        await using Disks disks = await OpenAsync(3, new MultiConnFilter());
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token) => call.Callback == "flush" ? gate.PassAsync(token) : default;
        await disks[0].WriteAsync(Data, 0, RequestFlags.None, None);
        Task flush = disks[0].FlushAsync(None).AsTask();
        await gate.ArrivedAsync(3);
        await disks[1].WriteAsync(Data, 0, RequestFlags.None, None).Soon();
        await using NextContext late = await disks.Chain.OpenAsync("disk").Soon();
        Task second = disks[2].FlushAsync(None).AsTask();
        await gate.ArrivedAsync(4);
        Assert.That((flush.IsCompleted, second.IsCompleted), Is.EqualTo((false, false)));
        gate.Open();
        await Task.WhenAll(flush, second).Soon();
    }

    [Test]
    public async Task A_write_that_ends_while_a_flush_runs_is_left_for_the_next_flush()
    {
        await using Disks disks = await OpenAsync(2, new MultiConnFilter { TrackDirty = MultiConnTracking.Connection });
        var write = new Gate();
        _plugin.Script.OnCall = (call, _) => call is { Callback: "write", Context: 2 } ? write.PassAsync(None) : default;
        await disks[0].WriteAsync(Data, 0, RequestFlags.None, None);
        Task writing = disks[1].WriteAsync(Data, 0, RequestFlags.None, None).AsTask();
        await write.ArrivedAsync();
        await disks[0].FlushAsync(None);
        Assert.That(Flushes(), Is.EqualTo(new[] { 1 }));
        write.Open();
        await writing.Soon();
        await disks[0].FlushAsync(None);
        Assert.That(Flushes(), Does.Contain(2));
    }

    [Test]
    public async Task A_flush_does_not_end_before_one_that_another_connection_began_for_the_same_write()
    {
        await using Disks disks = await OpenAsync(2, new MultiConnFilter { TrackDirty = MultiConnTracking.Connection });
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token) => call.Callback == "flush" ? gate.PassAsync(token) : default;
        await disks[0].WriteAsync(Data, 0, RequestFlags.None, None);
        Task first = disks[0].FlushAsync(None).AsTask();
        await gate.ArrivedAsync();
        Task second = disks[1].FlushAsync(None).AsTask();
        Assert.That(second.IsCompleted, Is.False);
        gate.Open();
        await Task.WhenAll(first, second).Soon();
    }

    [Test]
    public async Task A_flush_that_fails_on_one_connection_fails_and_is_repeated_there()
    {
        await using Disks disks = await OpenAsync(3, new MultiConnFilter { TrackDirty = MultiConnTracking.Connection });
        await disks[0].WriteAsync(Data, 0, RequestFlags.None, None);
        await disks[2].WriteAsync(Data, 0, RequestFlags.None, None);
        int failures = 1;
        _plugin.Script.Fail("flush", call => call.Context == 3 && failures-- > 0 ? new NbdException(NbdError.NoSpace, "full") : null);
        Assert.That(TestData.Failure(async () => await disks[0].FlushAsync(None)).Error, Is.EqualTo(NbdError.NoSpace));
        Flushes();
        await disks[1].FlushAsync(None);
        Assert.That(Flushes()[0], Is.EqualTo(3));
    }

    [Test]
    public async Task A_flush_that_is_given_up_is_repeated()
    {
        await using Disks disks = await OpenAsync(2, new MultiConnFilter());
        var gate = new Gate();
        _plugin.Script.OnCall = (call, token) => call.Callback == "flush" ? gate.PassAsync(token) : default;
        await disks[1].WriteAsync(Data, 0, RequestFlags.None, None);
        using var gone = new CancellationTokenSource();
        Task flush = disks[0].FlushAsync(gone.Token).AsTask();
        await gate.ArrivedAsync(2);
        await gone.CancelAsync();
        Assert.That(async () => await flush.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Flushes();
        gate.Open();
        await disks[0].FlushAsync(None);
        Assert.That(Flushes(), Is.EquivalentTo(new[] { 1, 2 }));
    }

    [Test]
    public async Task A_connection_that_ends_is_flushed_if_it_has_to_be_and_the_others_learn_of_a_failure()
    {
        await using Disks disks = await OpenAsync(4, new MultiConnFilter { TrackDirty = MultiConnTracking.Connection });
        await disks[3].CloseAsync();
        Assert.That(Flushes(), Is.Empty);
        await disks[2].WriteAsync(Data, 0, RequestFlags.None, None);
        await disks[2].CloseAsync();
        Assert.That(Flushes(), Is.EqualTo(new[] { 3 }));
        await disks[0].FlushAsync(None);
        Assert.That(Flushes(), Is.Empty);

        await disks[1].WriteAsync(Data, 0, RequestFlags.None, None);
        _plugin.Script.Fail("flush", times: 1);
        await disks[1].CloseAsync();
        NbdException e = TestData.Failure(async () => await disks[0].FlushAsync(None));
        Assert.That((e.Error, e.InnerException is NbdException), Is.EqualTo((NbdError.IoError, true)));
        await disks[0].FlushAsync(None);
    }

    [Test]
    public async Task What_a_connection_brought_out_before_it_ended_makes_readers_be_flushed()
    {
        await using Disks disks = await OpenAsync(2, new MultiConnFilter { TrackDirty = MultiConnTracking.Connection });
        await disks[0].ReadAsync(Data, 0, None);
        await disks[1].WriteAsync(Data, 0, RequestFlags.None, None);
        await disks[1].CloseAsync();
        Flushes();
        await disks[0].FlushAsync(None);
        Assert.That(Flushes(), Is.EqualTo(new[] { 1 }));
    }

    [Test]
    public async Task A_connection_that_ends_waits_for_the_flush_of_another_one_that_uses_it()
    {
        await using Disks disks = await OpenAsync(2, new MultiConnFilter { TrackDirty = MultiConnTracking.Off });
        var gate = new Gate();
        _plugin.Script.OnCall = (call, _) => call is { Callback: "flush", Context: 2 } ? gate.PassAsync(None) : default;
        Task flush = disks[0].FlushAsync(None).AsTask();
        await gate.ArrivedAsync();
        Task closing = disks[1].CloseAsync().AsTask();
        await disks[0].ReadAsync(Data, 0, None);
        Assert.That((flush.IsCompleted, closing.IsCompleted, _calls.Count("plugin", "close")), Is.EqualTo((false, false, 0)));
        gate.Open();
        await flush.Soon();
        await closing.Soon();
        Assert.That(_calls.Count("plugin", "close"), Is.EqualTo(1));
    }

    [Test]
    public async Task Nothing_is_lost_or_used_after_its_end_while_connections_come_write_flush_and_go([Values(1, 2, 3)] int seed)
    {
        var plugin = new ModelPlugin(new byte[4096], ModelPlugin.Everything with { CanMultiConn = false }) { Yields = true };
        var chainCalls = new RecordingFilter(_calls, "below");
        await using NbdBackend chain = NbdBackend.Compose(plugin, new MultiConnFilter { TrackDirty = (MultiConnTracking)(seed % 3) }, chainCalls);
        await Task.WhenAll(Enumerable.Range(0, 8).Select(worker => Task.Run(async () =>
        {
            var random = new Random((seed * 100) + worker);
            for (int round = 0; round < 10; round++)
            {
                await using NextContext disk = await chain.OpenAsync("disk");
                for (int i = 0; i < 10; i++)
                {
                    byte[] data = [(byte)random.Next(256)];
                    long offset = (worker * 512) + random.Next(512);
                    await disk.WriteAsync(data, offset, random.Next(3) == 0 ? RequestFlags.Fua : RequestFlags.None, None);
                    if (random.Next(3) == 0)
                    {
                        await disk.FlushAsync(None);
                    }
                }
            }
        }))).Soon();
        Assert.That(plugin.Offence, Is.Null, $"seed {seed}");
        Assert.That(plugin.Stable, Is.EqualTo(plugin.Data), $"seed {seed}: all connections have ended and were flushed");
        await chain.DisposeAsync();
        _calls.AssertBalanced();
    }

    [Test]
    public void Parameters_and_bad_values()
    {
        MultiConnFilter filter = Create(("multi-conn-mode", "unsafe"), ("multi-conn-track-dirty", "connection"), ("multi-conn-exportname", "yes"));
        Assert.That((filter.Mode, filter.TrackDirty, filter.ByExportName), Is.EqualTo((MultiConnMode.Unsafe, MultiConnTracking.Connection, true)));
        filter = Create();
        Assert.That((filter.Mode, filter.TrackDirty, filter.ByExportName), Is.EqualTo((MultiConnMode.Auto, MultiConnTracking.Fast, false)));
        Assert.That(() => Create(("multi-conn-mode", "always")), Throws.ArgumentException);
        Assert.That(() => new MultiConnFilter { Mode = (MultiConnMode)9 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new MultiConnFilter { TrackDirty = (MultiConnTracking)9 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private static MultiConnFilter Create(params (string Name, string Value)[] parameters)
        => (MultiConnFilter)MultiConnFilter.Entry.Create(
            new NbdParameters("multi-conn", parameters.Select(p => KeyValuePair.Create(p.Name, p.Value))));

    /// <summary>The connections that were flushed since the last time, by number from 1.</summary>
    private int[] Flushes()
    {
        int[] flushes = [.. _calls.Calls.Where(call => call is { Callback: "flush", Failed: false }).Select(call => call.Context)];
        _calls.Clear();
        return flushes;
    }

    private async Task<Disks> OpenAsync(int count, MultiConnFilter filter)
    {
        var disks = new Disks(NbdBackend.Compose(_plugin, filter));
        for (int i = 0; i < count; i++)
        {
            disks.Add(await disks.Chain.OpenAsync("disk"));
        }
        return disks;
    }

    private sealed class Disks(NbdBackend chain) : List<NextContext>, IAsyncDisposable
    {
        public NbdBackend Chain => chain;

        public ValueTask DisposeAsync() => chain.DisposeAsync();
    }
}
