using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Contexts that are tied to no connection: one for many, and for background work.</summary>
public sealed class SharedContextTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [Test]
    public async Task One_shared_context_serves_many_contexts_of_a_filter_and_outlives_them()
    {
        var calls = new CallRecorder();
        NextContext? shared = null;
        var filter = new HookFilter(new Hooks
        {
            Start = async (backend, token) => shared = await backend.OpenNextAsync(false, "common", null, token),
            Open = (context, _) =>
            {
                context.SetNext(shared);
                return default;
            },
        });
        NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(calls), filter);
        await chain.StartAsync();
        Assert.That((shared!.IsShared, shared.ExportName, shared.ReadOnly), Is.EqualTo((true, "common", false)));
        // The library prepares it for the first one that it is attached to.
        await using (NextContext first = await chain.OpenAsync("a"))
        await using (NextContext second = await chain.OpenAsync("b", readOnly: true))
        {
            await first.WriteAsync(new byte[] { 42 }, 7, RequestFlags.None, None);
            byte[] read = new byte[1];
            await second.ReadAsync(read, 7, None);
            Assert.That(read[0], Is.EqualTo(42));
            Assert.That(second.Info.CanWrite, Is.False);
        }
        await shared.ReadAsync(new byte[1], 0, None);
        await chain.DisposeAsync();
        Assert.That(calls.Lines, Is.EqualTo(new[]
        {
            "plugin.ready", "plugin.start", "plugin#1.open", "plugin#1.info", "plugin#1.write", "plugin#1.read",
            "plugin#1.read", "plugin#1.close", "plugin.cleanup",
        }));
    }

    [Test]
    public async Task A_shared_context_that_several_attach_at_once_is_prepared_once_and_all_wait_for_it()
    {
        var calls = new CallRecorder();
        var plugin = new RecordingPlugin(calls);
        var gate = new Gate();
        plugin.Script.OnCall = (call, _) => call.Callback == "info" ? gate.PassAsync(None) : default;
        NextContext? shared = null;
        var filter = new HookFilter(new Hooks
        {
            Start = async (backend, token) => shared = await backend.OpenNextAsync(false, "common", null, token),
            Open = (context, _) =>
            {
                context.SetNext(shared);
                return default;
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await chain.StartAsync();
        Task<NextContext> first = chain.OpenAsync("a").AsTask();
        await gate.ArrivedAsync();
        Task<NextContext> second = chain.OpenAsync("b").AsTask();
        Assert.That((first.IsCompleted, second.IsCompleted), Is.EqualTo((false, false)));
        gate.Open();
        await (await first.Soon()).DisposeAsync();
        await (await second.Soon()).DisposeAsync();
        Assert.That(calls.Count("plugin", "info"), Is.EqualTo(1));
    }

    [Test]
    public async Task Who_gives_up_opening_does_not_spoil_a_shared_context_for_the_others()
    {
        var calls = new CallRecorder();
        var plugin = new RecordingPlugin(calls);
        var gate = new Gate();
        plugin.Script.OnCall = (call, token) => call.Callback == "info" ? gate.PassAsync(token) : default;
        NextContext? shared = null;
        var filter = new HookFilter(new Hooks
        {
            Start = async (backend, token) => shared = await backend.OpenNextAsync(false, "common", null, token),
            Open = (context, _) =>
            {
                context.SetNext(shared);
                return default;
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await chain.StartAsync();
        using var cancel = new CancellationTokenSource();
        Task<NextContext> first = chain.OpenAsync("a", cancellationToken: cancel.Token).AsTask();
        await gate.ArrivedAsync();
        Task<NextContext> second = chain.OpenAsync("b").AsTask();
        await cancel.CancelAsync();
        Assert.That(async () => await first.Soon(), Throws.InstanceOf<OperationCanceledException>());
        gate.Open();
        NextContext opened = await second.Soon();
        Assert.That(opened.Info.Size, Is.EqualTo(plugin.Data.Length));
        await opened.DisposeAsync();
        Assert.That(calls.Count("plugin", "info"), Is.EqualTo(1));
    }

    [Test]
    public async Task Layers_below_a_shared_context_are_finalized_and_closed_with_it()
    {
        var chain = new RecordedChain("below");
        NbdBackend? place = null;
        var filter = new HookFilter(new Hooks
        {
            Start = (backend, _) =>
            {
                place = backend;
                return default;
            },
        });
        NbdBackend backend = NbdBackend.Compose(chain.Plugin, filter, chain.Filters[0]);
        await backend.StartAsync();
        NextContext shared = await place!.OpenNextAsync(true, "common", null, None);
        await shared.PrepareAsync(None);
        Assert.That(place.Next!.Name, Is.EqualTo("below"));
        chain.Calls.Clear();
        await shared.FinalizeAsync(None);
        await shared.CloseAsync();
        Assert.That(chain.Take(), Is.EqualTo(new[] { "below#1.finalize", "below#1.close", "plugin#1.close" }));
        await backend.DisposeAsync();
        Assert.That(chain.Take(), Is.EqualTo(new[] { "below.cleanup", "plugin.cleanup" }));
    }

    [Test]
    public async Task What_a_filter_left_open_is_closed_after_its_cleanup_and_before_that_of_the_layer_below()
    {
        var chain = new RecordedChain("below");
        var filter = new HookFilter(new Hooks
        {
            Start = async (backend, token) =>
            {
                NextContext prepared = await backend.OpenNextAsync(false, "prepared", null, token);
                await prepared.PrepareAsync(token);
                await backend.OpenNextAsync(false, "opened", null, token);
            },
            Cleanup = (_, _) =>
            {
                chain.Calls.Add(new RecordedCall("filter", "cleanup"));
                return default;
            },
        });
        NbdBackend backend = NbdBackend.Compose(chain.Plugin, filter, chain.Filters[0]);
        await backend.StartAsync();
        chain.Calls.Clear();
        await backend.DisposeAsync();
        IReadOnlyList<string> lines = chain.Take();
        Assert.That((lines[0], lines[^2], lines[^1]), Is.EqualTo(("filter.cleanup", "below.cleanup", "plugin.cleanup")));
        Assert.That(lines.Skip(1).SkipLast(2), Is.EquivalentTo(new[]
        {
            "below#1.finalize", "below#1.close", "plugin#1.close", "below#2.close", "plugin#2.close",
        }));
    }

    [Test]
    public async Task A_filter_may_open_and_close_shared_contexts_in_its_cleanup()
    {
        var chain = new RecordedChain();
        var filter = new HookFilter(new Hooks
        {
            Cleanup = async (backend, token) =>
            {
                await using NextContext last = await backend.OpenNextAsync(false, "last", null, token);
                await last.PrepareAsync(token);
                await last.FlushAsync(token);
            },
        });
        NbdBackend backend = NbdBackend.Compose(chain.Plugin, filter);
        await backend.StartAsync(chain.Log);
        chain.Calls.Clear();
        await backend.DisposeAsync();
        Assert.That(chain.Take(), Is.EqualTo(new[]
        {
            "plugin#1.open", "plugin#1.info", "plugin#1.flush", "plugin#1.close", "plugin.cleanup",
        }));
        Assert.That(chain.Warnings, Is.Empty);
    }

    [Test]
    public async Task Background_work_uses_a_shared_context_until_the_cleanup_stops_it()
    {
        var chain = new RecordedChain();
        using var stop = new CancellationTokenSource();
        var working = new TaskCompletionSource();
        Task? work = null;
        var filter = new HookFilter(new Hooks
        {
            Start = async (backend, token) =>
            {
                NextContext shared = await backend.OpenNextAsync(false, "common", null, token);
                await shared.PrepareAsync(token);
                work = Task.Run(
                    async () =>
                    {
                        while (!stop.IsCancellationRequested)
                        {
                            await shared.ReadAsync(new byte[1], 0, None);
                            working.TrySetResult();
                            await Task.Yield();
                        }
                        await shared.CloseAsync();
                    },
                    None);
            },
            Cleanup = async (_, _) =>
            {
                await stop.CancelAsync();
                await work!;
            },
        });
        NbdBackend backend = NbdBackend.Compose(chain.Plugin, filter);
        await using (NextContext disk = await backend.OpenAsync("disk"))
        {
            await working.Task.Soon();
            await disk.ReadAsync(new byte[1], 0, None);
        }
        await backend.DisposeAsync().Soon();
        Assert.That(chain.Take().TakeLast(2), Is.EqualTo(new[] { "plugin#1.close", "plugin.cleanup" }));
    }

    [Test]
    public async Task A_shared_context_that_is_finalized_while_attached_refuses_further_calls_with_the_rule()
    {
        NextContext? shared = null;
        var filter = new HookFilter(new Hooks
        {
            Start = async (backend, token) => shared = await backend.OpenNextAsync(false, "common", null, token),
            Open = (context, _) =>
            {
                context.SetNext(shared);
                return default;
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(new CallRecorder()), filter);
        await chain.StartAsync();
        await using NextContext disk = await chain.OpenAsync("a");
        await shared!.FinalizeAsync(None);
        Assert.That(
            async () => await disk.ReadAsync(new byte[1], 0, None),
            Throws.InvalidOperationException.With.Message.Contains("it was finalized while attached"));
    }

    [Test]
    public async Task An_emulated_operation_in_flight_is_finished_before_the_context_is_finalized()
    {
        var chain = new RecordedChain();
        chain.Plugin.Info = (_, info) => info with { CanFua = Support.Emulate, CanZero = Support.Emulate, CanCache = Support.Emulate };
        await using NbdBackend backend = chain.Backend;
        Func<NextContext, ValueTask>[] operations =
        [
            disk => disk.WriteAsync(new byte[1], 0, RequestFlags.Fua, None),
            disk => disk.ZeroAsync(0, 1, RequestFlags.Fua, None),
            disk => disk.TrimAsync(0, 1, RequestFlags.Fua, None),
        ];
        foreach (Func<NextContext, ValueTask> operation in operations)
        {
            var gate = new Gate();
            chain.Plugin.Script.OnCall = (call, _) => call.Callback is "write" or "trim" ? gate.PassAsync(None) : default;
            NextContext disk = await backend.OpenAsync("x");
            Task running = operation(disk).AsTask();
            await gate.ArrivedAsync();
            Task closing = disk.CloseAsync().AsTask();
            gate.Open();
            await running.Soon();
            await closing.Soon();
            Assert.That(chain.Take().TakeLast(2).Select(line => line.Split('.')[1]), Is.EqualTo(new[] { "flush", "close" }));
        }
    }

    [Test]
    public async Task Contexts_opened_for_a_shared_context_are_shared_too_and_resolve_no_default_export()
    {
        var opened = new List<(string, bool, bool)>();
        var below = new HookFilter(new Hooks
        {
            Default = (_, _) => new("default"),
            Open = async (context, token) =>
            {
                opened.Add((context.ExportName, context.IsShared, context.Connection is null));
                await context.OpenNextAsync(token);
                opened.Add((context.Next!.ExportName, context.Next.IsShared, context.IsTls));
            },
        });
        var filter = new HookFilter(new Hooks());
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(new CallRecorder()), filter, below);
        await chain.StartAsync();
        await using NextContext shared = await chain.OpenNextAsync(false, "", null, None);
        Assert.That(opened, Is.EqualTo(new[] { ("", true, true), ("", true, false) }));
    }
}
