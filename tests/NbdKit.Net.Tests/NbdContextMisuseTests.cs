using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Every rule of the context API that compiles when broken, and the exception that names it.</summary>
public sealed class NbdContextMisuseTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private RecordedChain _record = null!;
    private HookFilter _outer = null!;
    private HookFilter _inner = null!;
    private NbdBackend _chain = null!;
    private NextContext _disk = null!;

    [SetUp]
    public async Task Open()
    {
        _record = new RecordedChain();
        _outer = new HookFilter(new Hooks(), "outer");
        _inner = new HookFilter(new Hooks(), "inner");
        _chain = NbdBackend.Compose(_record.Plugin, _outer, _inner);
        _disk = await _chain.OpenAsync("disk");
    }

    [TearDown]
    public async Task Close()
    {
        await _disk.DisposeAsync().Soon();
        await _chain.DisposeAsync().Soon();
        _record.Calls.AssertBalanced();
    }

    [Test]
    public async Task Data_calls_before_prepare()
    {
        await using NextContext next = await OpenBelowOuterAsync();
        Refuses(() => next.ReadAsync(new byte[1], 0, None).AsTask(), "inner is open: it takes calls between prepare and finalize only");
        Assert.That(() => next.Info, Throws.InvalidOperationException.With.Message.Contains("inner is open"));
        Refuses(() => next.FlushAsync(None).AsTask(), "inner is open");
    }

    [Test]
    public async Task Data_calls_after_finalize_and_after_close()
    {
        NextContext next = await OpenBelowOuterAsync();
        await next.PrepareAsync(None);
        await next.FinalizeAsync(None);
        Refuses(() => next.ReadAsync(new byte[1], 0, None).AsTask(), "inner is finalized");
        Refuses(() => next.ZeroAsync(0, 1, RequestFlags.None, None).AsTask(), "inner is finalized");
        await next.CloseAsync();
        Refuses(() => next.ReadAsync(new byte[1], 0, None).AsTask(), "inner is closed");
        Refuses(() => next.PrepareAsync(None).AsTask(), "inner is closed: it cannot be prepared");
        Refuses(() => next.FinalizeAsync(None).AsTask(), "inner is closed: it cannot be finalized");
        await _disk.FinalizeAsync(None);
        Refuses(() => _disk.ReadAsync(new byte[1], 0, None).AsTask(), "outer is finalized");
    }

    [Test]
    public async Task Preparing_after_finalize()
    {
        await using NextContext next = await OpenBelowOuterAsync();
        await next.PrepareAsync(None);
        await next.FinalizeAsync(None);
        Refuses(() => next.PrepareAsync(None).AsTask(), "inner is finalized: it cannot be prepared");
    }

    [Test]
    public async Task Preparing_again_after_it_failed()
    {
        await using NextContext next = await OpenBelowOuterAsync();
        _record.Plugin.Script.Fail("info", times: 1);
        Assert.That(async () => await next.PrepareAsync(None), Throws.InstanceOf<NbdException>());
        Refuses(() => next.PrepareAsync(None).AsTask(), "inner failed to prepare");
        Refuses(() => next.ReadAsync(new byte[1], 0, None).AsTask(), "inner failed to prepare");
    }

    [Test]
    public async Task Attaching_a_context_of_another_layer()
    {
        await using NextContext belowInner = await _chain.Next!.OpenNextAsync(false, "x", _inner.Context, None);
        Refuses(() => _outer.Context.SetNext(belowInner), "A context of plugin was attached to outer, which is not directly above it");
        Refuses(() => _inner.Context.SetNext(_outer.Context.Next), "A context of inner was attached to inner");
    }

    [Test]
    public async Task Attaching_a_context_of_another_chain()
    {
        await using NbdBackend other = NbdBackend.Compose(new RecordingPlugin(new CallRecorder()), new HookFilter(new Hooks(), "other"));
        await other.StartAsync();
        await using NextContext foreign = await other.OpenNextAsync(false, "x", null, None);
        Refuses(() => _outer.Context.SetNext(foreign), "A context of plugin was attached to outer");
    }

    [Test]
    public async Task Attaching_a_context_twice()
    {
        await using NextContext second = await _chain.OpenAsync("second");
        Refuses(() => _outer.Contexts[1].SetNext(_outer.Contexts[0].Next), "attached elsewhere; only a shared one can serve several");
        Refuses(() => _outer.Context.SetNext(_outer.Context.Next), "attached");
        Assert.That(_outer.Context.Next!.ExportName, Is.EqualTo("disk"), "nothing has changed");
    }

    [Test]
    public async Task Attaching_an_unprepared_context_to_a_prepared_layer()
    {
        await using NextContext next = await OpenBelowOuterAsync();
        Refuses(() => _outer.Context.SetNext(next), "inner must be prepared before it is attached to a layer that is");
    }

    [Test]
    public async Task Attaching_what_is_finalized_or_closed()
    {
        NextContext next = await OpenBelowOuterAsync();
        await next.PrepareAsync(None);
        await next.FinalizeAsync(None);
        Refuses(() => _outer.Context.SetNext(next), "inner is finalized: it cannot be attached");
        await next.CloseAsync();
        Refuses(() => _outer.Context.SetNext(next), "inner is closed: it cannot be attached");
    }

    [Test]
    public async Task Attaching_to_a_context_that_is_closing()
    {
        await using NextContext next = await OpenBelowOuterAsync();
        await next.PrepareAsync(None);
        await _disk.FinalizeAsync(None);
        Refuses(() => _outer.Context.SetNext(next), "The context of outer is closing: nothing can be attached to it");
    }

    [Test]
    public void Finalizing_or_closing_an_attached_context()
    {
        NextContext attached = _outer.Context.Next!;
        Refuses(() => attached.FinalizeAsync(None).AsTask(), "inner is attached: the library finalizes it");
        Refuses(() => attached.CloseAsync().AsTask(), "inner is attached: the library closes it");
        Refuses(() => attached.DisposeAsync().AsTask(), "inner is attached: the library closes it");
        Refuses(() => _outer.Context.CloseWhenIdle(attached), "inner is attached: the library closes it");
    }

    [Test]
    public void Closing_when_idle_what_belongs_to_another_layer()
        => Refuses(() => _outer.Context.CloseWhenIdle(_inner.Context.Next!), "A context of plugin was given to outer, which is not directly above it");

    [Test]
    public void Opening_the_layer_below_a_plugin()
        => Refuses(() => _chain.Next!.Next!.OpenNextAsync(false, "x", null, None).AsTask(), "plugin is a plugin: there is no layer below");

    [Test]
    public void Opening_for_a_context_of_another_layer()
        => Refuses(
            () => _chain.OpenNextAsync(false, "x", _inner.Context, None).AsTask(),
            "outer was asked to open its next layer for a context of inner; it opens only for its own");

    [Test]
    public void Starting_or_opening_an_inner_layer()
    {
        Refuses(() => _chain.Next!.StartAsync().AsTask(), "inner is not the outermost layer of its chain; start outer");
        Refuses(() => _chain.Next!.OpenAsync("x").AsTask(), "inner is not the outermost layer of its chain");
        Assert.That(async () => await _chain.Next!.DisposeAsync(), Throws.Nothing);
        Assert.That(_record.Calls.Count("plugin", "cleanup"), Is.Zero, "an inner layer ends with its chain");
    }

    [Test]
    public async Task Opening_before_the_chain_was_started_and_after_it_has_ended()
    {
        NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(_record.Calls) { Name = "p2" }, new HookFilter(new Hooks(), "f2"));
        Refuses(() => chain.OpenNextAsync(false, "x", null, None).AsTask(), "p2 is not running");
        await chain.StartAsync();
        await chain.DisposeAsync();
        Refuses(() => chain.OpenNextAsync(false, "x", null, None).AsTask(), "p2 is not running");
        Assert.That(async () => await chain.OpenAsync("x"), Throws.InstanceOf<ObjectDisposedException>());
        Assert.That(_record.Calls.Count("p2", "open"), Is.Zero);
    }

    [Test]
    public async Task Opening_and_attaching_below_a_prepared_context_prepares_what_it_opens()
    {
        await _outer.Context.OpenNextAsync(None);
        await _disk.ReadAsync(new byte[1], 0, None);
        Assert.That(_record.Calls.Calls[^1].ToString(), Does.StartWith("plugin#2.").Or.EqualTo("plugin#1.close"));
        Assert.That(_record.Calls.Count("plugin", "open"), Is.EqualTo(2));
    }

    [Test]
    public async Task Opening_and_attaching_below_a_closing_context_leaves_nothing_open()
    {
        await _disk.FinalizeAsync(None);
        Refuses(() => _outer.Context.OpenNextAsync(None).AsTask(), "outer is closing");
        Assert.That(_record.Calls.Count("plugin", "close"), Is.EqualTo(_record.Calls.Count("plugin", "open") - 1));
    }

    [Test]
    public void One_filter_instance_cannot_stand_twice_in_a_chain()
    {
        var filter = new HookFilter(new Hooks(), "twice");
        Assert.That(
            () => NbdBackend.Compose(new RecordingPlugin(_record.Calls), filter, new HookFilter(new Hooks()), filter),
            Throws.ArgumentException.With.Message.Contains("twice"));
        Assert.That(() => NbdBackend.Compose(null!), Throws.ArgumentNullException);
        Assert.That(() => NbdBackend.Compose(new RecordingPlugin(_record.Calls), [null!]), Throws.ArgumentNullException);
    }

    private async Task<NextContext> OpenBelowOuterAsync() => await _chain.OpenNextAsync(false, "x", _outer.Context, None);

    private static void Refuses(Func<Task> misuse, string rule)
        => Assert.That(async () => await misuse().Soon(), Throws.InstanceOf<InvalidOperationException>().With.Message.Contains(rule));

    private static void Refuses(Action misuse, string rule)
        => Assert.That(misuse, Throws.InstanceOf<InvalidOperationException>().With.Message.Contains(rule));
}
