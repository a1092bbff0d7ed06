using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>What happens to the other layers when a callback of one fails.</summary>
public sealed class LifecycleFailureTests
{
    private static readonly string[] Layers = ["outer", "middle", "inner", "plugin"];

    [TestCaseSource(nameof(Layers))]
    public async Task A_failed_open_closes_the_layers_below_that_were_opened(string layer)
    {
        var chain = new RecordedChain("outer", "middle", "inner");
        // Recording filters open what is below after their own script: these fail when that has returned.
        var late = new HookFilter(
            new Hooks
            {
                Open = async (context, token) =>
                {
                    await context.OpenNextAsync(token);
                    throw new NbdException(NbdError.NoSpace, "late");
                },
            });
        if (layer == "outer")
        {
            NbdBackend lateChain = NbdBackend.Compose(chain.Plugin, [late, .. chain.Filters]);
            Assert.That(async () => await lateChain.OpenAsync("x"), Throws.InstanceOf<NbdException>().With.Message.EqualTo("late"));
            Assert.That(chain.Take().Where(line => line.Contains('#')), Is.EqualTo(new[]
            {
                "outer#1.open", "middle#1.open", "inner#1.open", "plugin#1.open",
                "outer#1.close", "middle#1.close", "inner#1.close", "plugin#1.close",
            }));
            await lateChain.DisposeAsync();
            return;
        }
        chain.Script(layer).Fail("open", times: 1);
        Assert.That(async () => await chain.Backend.OpenAsync("x"), Throws.InstanceOf<NbdException>());
        string[] above = [.. Layers.TakeWhile(name => name != layer)];
        Assert.That(chain.Take().Where(line => line.Contains('#')), Is.EqualTo(
            above.Append(layer).Select(name => name + "#1.open")
                .Append(layer + "#1.open failed")
                .Concat(above.Reverse().Select(name => name + "#1.open failed"))));
        await using NextContext again = await chain.Backend.OpenAsync("x");
        Assert.That(again.Info.Size, Is.EqualTo(chain.Plugin.Data.Length));
        await chain.Backend.DisposeAsync();
    }

    [TestCaseSource(nameof(Layers))]
    public async Task A_failed_prepare_closes_every_layer_and_finalizes_those_that_were_prepared(string layer)
    {
        var chain = new RecordedChain("outer", "middle", "inner");
        // A plugin has no prepare: its info is what can fail then.
        string callback = layer == "plugin" ? "info" : "prepare";
        chain.Script(layer).Fail(callback, times: 1);
        Assert.That(
            async () => await chain.Backend.OpenAsync("x"),
            Throws.InstanceOf<NbdException>().With.Message.EqualTo($"{layer}#1.{callback} is told to fail"));
        string[] below = [.. Layers.SkipWhile(name => name != layer).Skip(1).Where(name => name != "plugin")];
        Assert.That(chain.Take().Where(line => line.Contains("finalize") || line.Contains("close")), Is.EqualTo(
            below.Select(name => name + "#1.finalize").Concat(Layers.Select(name => name + "#1.close"))));
        await chain.Backend.DisposeAsync();
    }

    [TestCaseSource(nameof(Layers))]
    public async Task A_failed_info_finalizes_the_layers_that_were_prepared_that_one_included(string layer)
    {
        var chain = new RecordedChain("outer", "middle", "inner");
        chain.Script(layer).Fail("info", times: 1);
        Assert.That(
            async () => await chain.Backend.OpenAsync("x"),
            Throws.InstanceOf<NbdException>().With.Message.EqualTo($"{layer}#1.info is told to fail"));
        string[] prepared = [.. Layers.SkipWhile(name => name != layer).Where(name => name != "plugin")];
        Assert.That(chain.Take().Where(line => line.Contains("finalize") || line.Contains("close")), Is.EqualTo(
            prepared.Select(name => name + "#1.finalize").Concat(Layers.Select(name => name + "#1.close"))));
        await chain.Backend.DisposeAsync();
    }

    [TestCase("outer")]
    [TestCase("middle")]
    [TestCase("inner")]
    public async Task A_failed_finalize_is_reported_once_and_the_layers_below_are_finalized_all_the_same(string layer)
    {
        var chain = new RecordedChain("outer", "middle", "inner");
        await chain.Backend.StartAsync(chain.Log);
        NextContext disk = await chain.Backend.OpenAsync("x");
        chain.Script(layer).Fail("finalize", times: 1);
        chain.Calls.Clear();
        Assert.That(
            async () => await disk.FinalizeAsync(CancellationToken.None),
            Throws.InstanceOf<NbdException>().With.Message.EqualTo($"{layer}#1.finalize is told to fail"));
        await disk.CloseAsync();
        Assert.That(chain.Take().Where(line => !line.EndsWith("failed")), Is.EqualTo(new[]
        {
            "outer#1.finalize", "middle#1.finalize", "inner#1.finalize",
            "outer#1.close", "middle#1.close", "inner#1.close", "plugin#1.close",
        }));
        Assert.That(chain.Warnings, Is.EqualTo(new[] { $"{layer} failed in finalize" }));
        await chain.Backend.DisposeAsync();
    }

    [Test]
    public async Task Every_finalize_fails_and_the_first_failure_is_told()
    {
        var chain = new RecordedChain("outer", "inner");
        await chain.Backend.StartAsync(chain.Log);
        NextContext disk = await chain.Backend.OpenAsync("x");
        chain.Script("outer").Fail("finalize");
        chain.Script("inner").Fail("finalize");
        Assert.That(
            async () => await disk.FinalizeAsync(CancellationToken.None),
            Throws.InstanceOf<NbdException>().With.Message.EqualTo("outer#1.finalize is told to fail"));
        await disk.DisposeAsync();
        Assert.That(chain.Warnings, Is.EqualTo(new[] { "outer failed in finalize", "inner failed in finalize" }));
        Assert.That(chain.Calls.Count("plugin", "close"), Is.EqualTo(1));
        await chain.Backend.DisposeAsync();
    }

    [TestCaseSource(nameof(Layers))]
    public async Task A_failed_close_is_logged_and_the_layers_below_are_closed_all_the_same(string layer)
    {
        var chain = new RecordedChain("outer", "middle", "inner");
        await chain.Backend.StartAsync(chain.Log);
        NextContext disk = await chain.Backend.OpenAsync("x");
        chain.Script(layer).Fail("close");
        chain.Calls.Clear();
        await disk.CloseAsync();
        await disk.CloseAsync();
        Assert.That(chain.Take().Where(line => line.EndsWith(".close")), Is.EqualTo(Layers.Select(name => name + "#1.close")));
        Assert.That(chain.Warnings, Is.EqualTo(new[] { $"{layer} failed in close" }));
        await chain.Backend.DisposeAsync();
    }

    [TestCaseSource(nameof(Layers))]
    public async Task When_a_layer_does_not_get_ready_nothing_is_started_and_all_is_disposed_of(string layer)
    {
        (NbdBackend chain, CallRecorder calls, Func<string, CallScript> script) = Disposables();
        script(layer).Fail("ready");
        Assert.That(async () => await chain.StartAsync(), Throws.InstanceOf<NbdException>());
        Assert.That(calls.Lines.Where(line => line.Contains("start") || line.Contains("cleanup")), Is.Empty);
        Assert.That(calls.Lines.TakeLast(4), Is.EqualTo(Layers.Reverse().Select(name => name + ".dispose")));
        Assert.That(async () => await chain.OpenAsync(), Throws.InstanceOf<ObjectDisposedException>());
        await chain.DisposeAsync();
        Assert.That(calls.Lines.Count(line => line.Contains("dispose")), Is.EqualTo(4));
    }

    [TestCaseSource(nameof(Layers))]
    public async Task When_a_layer_does_not_start_it_and_those_that_did_are_cleaned_up_and_all_is_disposed_of(string layer)
    {
        (NbdBackend chain, CallRecorder calls, Func<string, CallScript> script) = Disposables();
        script(layer).Fail("start");
        Assert.That(async () => await chain.StartAsync(), Throws.InstanceOf<NbdException>());
        Assert.That(calls.Lines.SkipWhile(line => !line.EndsWith("failed")).Skip(1), Is.EqualTo(
            Layers.SkipWhile(name => name != layer).Select(name => name + ".cleanup")
                .Concat(Layers.Reverse().Select(name => name + ".dispose"))));
        await chain.DisposeAsync();
        Assert.That(calls.Lines.Count(line => line.Contains("dispose")), Is.EqualTo(4));
    }

    [TestCaseSource(nameof(Layers))]
    public async Task A_failed_cleanup_is_logged_and_the_rest_is_cleaned_up_and_disposed_of(string layer)
    {
        (NbdBackend chain, CallRecorder calls, Func<string, CallScript> script) = Disposables();
        var log = new RecordingLog();
        await chain.StartAsync(log);
        script(layer).Fail("cleanup");
        calls.Clear();
        await chain.DisposeAsync();
        Assert.That(calls.Lines.Where(line => !line.EndsWith("failed")), Is.EqualTo(
            Layers.Select(name => name + ".cleanup").Concat(Layers.Reverse().Select(name => name + ".dispose"))));
        Assert.That(log.Entries.Select(e => e.Text), Is.EqualTo(new[] { $"{layer} failed in cleanup" }));
    }

    [Test]
    public async Task A_failed_disposal_is_logged_and_the_rest_is_disposed_of()
    {
        int disposed = 0;
        HookFilter Filter(string name, Exception? failure) => new(
            new Hooks
            {
                Dispose = () =>
                {
                    disposed++;
                    if (failure is not null)
                    {
                        throw failure;
                    }
                },
            },
            name);
        var log = new RecordingLog();
        NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(new CallRecorder()), Filter("outer", null), Filter("inner", new IOException("busy")));
        await chain.StartAsync(log);
        await chain.DisposeAsync();
        Assert.That(disposed, Is.EqualTo(2));
        Assert.That(log.Entries.Select(e => e.Text), Is.EqualTo(new[] { "inner failed in dispose" }));
    }

    [Test]
    public void A_layer_that_opens_to_null_or_has_no_info_fails_the_open_and_nothing_stays_open()
    {
        var chain = new RecordedChain("filter");
        chain.Filters[0].Info = (_, _) => null!;
        Assert.That(
            async () => await chain.Backend.OpenAsync("x"),
            Throws.InvalidOperationException.With.Message.Contains("filter returned null"));
        RecordedChain.AssertBalanced(chain.Calls.Calls);
        NbdBackend nothing = NbdBackend.Compose(new NullHandlePlugin());
        Assert.That(
            async () => await nothing.OpenAsync("x"), Throws.InvalidOperationException.With.Message.Contains("returned null"));
    }

    private static (NbdBackend Chain, CallRecorder Calls, Func<string, CallScript> Script) Disposables()
    {
        var calls = new CallRecorder();
        var plugin = new RecordingPlugin(calls);
        RecordingFilter[] filters = [new(calls, "outer"), new(calls, "middle"), new(calls, "inner")];
        NbdBackend chain = NbdBackend.Compose(
            new DisposablePlugin(plugin, calls), [.. filters.Select(filter => new DisposableFilter(filter, calls))]);
        return (chain, calls, name => name == "plugin" ? plugin.Script : filters.Single(f => f.Name == name).Script);
    }

    private sealed class NullHandlePlugin : INbdPlugin
    {
        public string Name => "nothing";

        public ThreadModel ThreadModel => ThreadModel.Parallel;

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
            => new((INbdPluginHandle)null!);
    }
}
