using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>The order of all callbacks of a chain that the host opens itself; see the remarks of <see cref="INbdPlugin"/>.</summary>
public sealed class LifecycleTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [Test]
    public async Task Three_filters_over_a_plugin_are_called_in_the_documented_order()
    {
        var chain = new RecordedChain("outer", "middle", "inner");
        Assert.That(chain.Take(), Is.Empty, "composing calls nothing but the thread models");

        await chain.Backend.StartAsync();
        Assert.That(chain.Take(), Is.EqualTo(new[]
        {
            "plugin.ready", "inner.ready", "middle.ready", "outer.ready",
            "plugin.start", "inner.start", "middle.start", "outer.start",
        }));

        NextContext disk = await chain.Backend.OpenAsync("disk");
        Assert.That(chain.Take(), Is.EqualTo(new[]
        {
            "outer#1.open", "middle#1.open", "inner#1.open", "plugin#1.open",
            "plugin#1.info",
            "inner#1.prepare", "inner#1.info",
            "middle#1.prepare", "middle#1.info",
            "outer#1.prepare", "outer#1.info",
        }));

        await disk.ReadAsync(new byte[4], 0, None);
        await disk.WriteAsync(new byte[4], 0, RequestFlags.Fua, None);
        await disk.FlushAsync(None);
        await disk.TrimAsync(0, 4, RequestFlags.None, None);
        await disk.ZeroAsync(0, 4, RequestFlags.MayTrim, None);
        await disk.CacheAsync(0, 4, None);
        await disk.ExtentsAsync(0, 4, RequestFlags.None, new ExtentList(0, 4), None);
        string[] requests = ["read", "write", "flush", "trim", "zero", "cache", "extents"];
        Assert.That(chain.Take(), Is.EqualTo(requests.SelectMany(
            call => new[] { $"outer#1.{call}", $"middle#1.{call}", $"inner#1.{call}", $"plugin#1.{call}" })));

        await disk.DisposeAsync();
        Assert.That(chain.Take(), Is.EqualTo(new[]
        {
            "outer#1.finalize", "middle#1.finalize", "inner#1.finalize",
            "outer#1.close", "middle#1.close", "inner#1.close", "plugin#1.close",
        }));

        await chain.Backend.DisposeAsync();
        Assert.That(chain.Take(), Is.EqualTo(new[] { "outer.cleanup", "middle.cleanup", "inner.cleanup", "plugin.cleanup" }));
    }

    [Test]
    public async Task Opens_of_the_inner_layers_return_first()
    {
        var order = new List<string>();
        HookFilter Filter(string name) => new(
            new Hooks
            {
                Open = async (context, token) =>
                {
                    order.Add(name + " begins");
                    await context.OpenNextAsync(token);
                    order.Add(name + " returns");
                },
            },
            name);
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(new CallRecorder()), Filter("a"), Filter("b"));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(order, Is.EqualTo(new[] { "a begins", "b begins", "b returns", "a returns" }));
    }

    [Test]
    public async Task Layers_are_disposed_of_after_the_cleanup_the_plugin_first()
    {
        var calls = new CallRecorder();
        NbdBackend chain = NbdBackend.Compose(
            new DisposablePlugin(new RecordingPlugin(calls), calls),
            new DisposableFilter(new RecordingFilter(calls, "outer"), calls),
            new DisposableFilter(new RecordingFilter(calls, "inner"), calls));
        await chain.StartAsync();
        calls.Clear();
        await chain.DisposeAsync();
        await chain.DisposeAsync();
        Assert.That(calls.Lines, Is.EqualTo(new[]
        {
            "outer.cleanup", "inner.cleanup", "plugin.cleanup", "plugin.dispose", "inner.dispose", "outer.dispose",
        }));
    }

    [Test]
    public async Task A_chain_that_was_never_started_is_disposed_of_without_a_cleanup()
    {
        var calls = new CallRecorder();
        NbdBackend chain = NbdBackend.Compose(
            new DisposablePlugin(new RecordingPlugin(calls), calls),
            new DisposableFilter(new RecordingFilter(calls), calls));
        await chain.DisposeAsync();
        Assert.That(calls.Lines, Is.EqualTo(new[] { "plugin.dispose", "filter.dispose" }));
        Assert.That(async () => await chain.StartAsync(), Throws.InstanceOf<ObjectDisposedException>());
    }

    [Test]
    public async Task Every_layer_is_told_the_final_thread_model()
    {
        var told = new List<(string, ThreadModel)>();
        Hooks Hooks(string name, ThreadModel? model) => new()
        {
            Model = next => model is { } own && own < next ? own : next,
            Ready = (final, _) =>
            {
                told.Add((name, final));
                return default;
            },
        };
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(new CallRecorder()),
            new HookFilter(Hooks("outer", null), "outer"),
            new HookFilter(Hooks("middle", ThreadModel.SerializeRequests), "middle"),
            new HookFilter(Hooks("inner", ThreadModel.SerializeRetirement), "inner"));
        await chain.StartAsync();
        Assert.That(told, Is.EqualTo(new[]
        {
            ("inner", ThreadModel.SerializeRequests),
            ("middle", ThreadModel.SerializeRequests),
            ("outer", ThreadModel.SerializeRequests),
        }));
        Assert.That(chain.ThreadModel, Is.EqualTo(ThreadModel.SerializeRequests));
        Assert.That(chain.Next!.Next!.ThreadModel, Is.EqualTo(ThreadModel.SerializeRetirement));
    }

    [Test]
    public async Task Opening_starts_a_chain_that_was_not_started_and_only_once()
    {
        var chain = new RecordedChain("filter");
        NextContext first = await chain.Backend.OpenAsync("a");
        NextContext second = await chain.Backend.OpenAsync("b", readOnly: true);
        await chain.Backend.StartAsync();
        Assert.That(chain.Calls.Count("plugin", "ready"), Is.EqualTo(1));
        Assert.That(chain.Calls.Count("filter", "start"), Is.EqualTo(1));
        Assert.That(chain.Calls.Calls.Single(c => c is { Layer: "plugin", Callback: "open", Context: 2 }),
            Is.EqualTo(new RecordedCall("plugin", "open", 2) { ExportName = "b", ReadOnly = true }));
        await first.DisposeAsync();
        await second.DisposeAsync();
        await chain.Backend.DisposeAsync();
        chain.Calls.AssertBalanced();
        Assert.That(chain.Calls.Count("plugin", "cleanup"), Is.EqualTo(1));
    }

    [Test, Property("Rule", "E17")]
    public async Task E17_The_default_export_is_resolved_at_each_layer_before_its_open()
    {
        var opened = new List<(string, string)>();
        HookFilter Filter(string name, string? export) => new(
            new Hooks
            {
                Default = export is null ? null : (_, _) => new(export),
                Open = (context, token) =>
                {
                    opened.Add((name, context.ExportName));
                    return name == "renames" ? context.OpenNextAsync(context.ReadOnly, "", token) : context.OpenNextAsync(token);
                },
            },
            name);
        var recorder = new CallRecorder();
        await using NbdBackend chain = NbdBackend.Compose(
            new RecordingPlugin(recorder), Filter("outer", null), Filter("renames", "house"), Filter("inner", "garden"));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(opened, Is.EqualTo(new[] { ("outer", "house"), ("renames", "house"), ("inner", "garden") }));
        Assert.That(disk.ExportName, Is.EqualTo("house"));
        Assert.That(recorder.Calls.Single(c => c.Callback == "open").ExportName, Is.EqualTo("garden"));
    }

    [Test]
    public async Task Without_a_default_export_the_empty_name_cannot_be_opened()
    {
        var filter = new HookFilter(new Hooks { Default = (_, _) => new((string?)null) });
        var chain = new CallRecorder();
        await using NbdBackend backend = NbdBackend.Compose(new RecordingPlugin(chain), filter);
        Assert.That(
            async () => await backend.OpenAsync(),
            Throws.InstanceOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(NbdError.InvalidArgument));
        Assert.That(filter.Contexts, Is.Empty);
        await using NextContext named = await backend.OpenAsync("name");
        Assert.That(named.ExportName, Is.EqualTo("name"));
    }

    [Test]
    public async Task Lists_resolve_the_default_export_at_the_layer_that_added_it()
    {
        var outer = new HookFilter(new Hooks
        {
            Default = (_, _) => new("outer's"),
            List = async (next, exports, token) =>
            {
                var below = new ExportList();
                await next.ListExportsAsync(below, false, null, token);
                foreach (NbdExport export in below)
                {
                    exports.Add("a-" + export.Name, export.Description);
                }
                exports.AddDefault();
            },
        });
        var inner = new HookFilter(new Hooks { Default = (_, _) => new("inner's") });
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(new CallRecorder()), outer, inner);
        var list = new ExportList();
        await chain.ListExportsAsync(list, false, null, None);
        // The plugin's own default is "", listed by the plugin; the inner filter passes that list on as it is.
        Assert.That(list.Select(e => e.Name), Is.EqualTo(new[] { "a-", "outer's" }));
    }

    [Test]
    public async Task A_context_that_the_host_forgot_is_finalized_and_closed_before_the_cleanup()
    {
        var chain = new RecordedChain("filter");
        NextContext forgotten = await chain.Backend.OpenAsync("disk");
        chain.Calls.Clear();
        await chain.Backend.DisposeAsync();
        Assert.That(chain.Take(), Is.EqualTo(new[]
        {
            "filter#1.finalize", "filter#1.close", "plugin#1.close", "filter.cleanup", "plugin.cleanup",
        }));
        await forgotten.DisposeAsync();
        Assert.That(chain.Take(), Is.Empty);
    }
}
