using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>What a filter may do with its own context: opening the layer below as it likes, and attaching it.</summary>
public sealed class NbdContextTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [Test]
    public async Task The_layer_below_is_opened_with_another_name_and_read_only()
    {
        var calls = new CallRecorder();
        var filter = new HookFilter(new Hooks { Open = (context, token) => context.OpenNextAsync(true, "below", token) });
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(calls), filter);
        await using NextContext disk = await chain.OpenAsync("above");
        RecordedCall open = calls.Calls.Single(call => call.Callback == "open");
        Assert.That((open.ExportName, open.ReadOnly), Is.EqualTo(("below", true)));
        Assert.That((disk.ExportName, disk.ReadOnly), Is.EqualTo(("above", false)));
        Assert.That(disk.Info.CanWrite, Is.False, "what is below was opened read-only");
        Assert.That(filter.Context.Next!.ReadOnly);
        Assert.That((filter.Context.Connection, filter.Context.IsShared, filter.Context.IsTls), Is.EqualTo((default(NbdConnection), false, false)));
    }

    [Test]
    public async Task A_filter_that_opens_nothing_below_gets_a_next_that_names_the_rule()
    {
        var calls = new CallRecorder();
        bool? attached = null;
        var filter = new HookFilter(new Hooks
        {
            Open = (_, _) => default,
            Info = (_, next, _) =>
            {
                attached = next.IsAttached;
                return new(new NbdExportInfo { Size = 512 });
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(calls), filter);
        await using NextContext disk = await chain.OpenAsync("x");
        Assert.That(attached, Is.False);
        Assert.That(
            async () => await disk.ReadAsync(new byte[1], 0, None),
            Throws.InvalidOperationException.With.Message.Contains("No context of the layer below is attached"));
        await disk.CloseAsync();
        Assert.That(calls.Lines, Is.EqualTo(new[] { "plugin.ready", "plugin.start" }));
    }

    [Test]
    public async Task Every_member_of_a_detached_next_throws_with_the_rule()
    {
        NextContext next = NextContext.Detached;
        var list = new ExtentList(0, 1);
        Func<Task>[] calls =
        [
            async () => await next.ReadAsync(new byte[1], 0, None),
            async () => await next.WriteAsync(new byte[1], 0, RequestFlags.None, None),
            async () => await next.FlushAsync(None),
            async () => await next.TrimAsync(0, 1, RequestFlags.None, None),
            async () => await next.ZeroAsync(0, 1, RequestFlags.None, None),
            async () => await next.CacheAsync(0, 1, None),
            async () => await next.ExtentsAsync(0, 1, RequestFlags.None, list, None),
            async () => await next.ExtentsFullAsync(0, 1, ExtentList.BaseAllocation, None),
            async () => await next.ExtentsAlignedAsync(0, 1, 1, list, None),
            async () => await next.PrepareAsync(None),
            async () => await next.FinalizeAsync(None),
            () => Task.FromResult(next.Info),
            () => Task.FromResult(next.Backend),
            () => Task.FromResult(next.ExportName),
            () => Task.FromResult(next.ReadOnly),
            () => Task.FromResult(next.IsShared),
        ];
        foreach (Func<Task> call in calls)
        {
            Assert.That(call, Throws.InvalidOperationException.With.Message.StartsWith("No context of the layer below is attached"));
        }
        Assert.That(next.IsAttached, Is.False);
        await next.CloseAsync();
        await next.WaitForCallsAsync(None);
    }

    [Test]
    public async Task A_filter_may_attach_while_it_opens_prepares_or_serves_and_what_it_replaced_is_its_own()
    {
        var calls = new CallRecorder();
        var filter = new HookFilter(new Hooks
        {
            Open = async (context, token) =>
            {
                await context.OpenNextAsync(true, "first", token);
                // The second open replaces the first, which nobody used.
                await context.OpenNextAsync(true, "second", token);
            },
            Prepare = async (context, next, token) =>
            {
                Assert.That(next.ExportName, Is.EqualTo("second"));
                NextContext third = await context.Backend.OpenNextAsync(false, "third", context, token);
                NextContext? second = context.SetNext(third);
                Assert.That(second, Is.SameAs(next));
                await second!.DisposeAsync();
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(calls), filter);
        await using NextContext disk = await chain.OpenAsync("x");
        await disk.WriteAsync(new byte[1], 0, RequestFlags.None, None);
        NextContext fourth = await chain.OpenNextAsync(false, "fourth", filter.Context, None);
        await fourth.PrepareAsync(None);
        NextContext replaced = filter.Context.SetNext(fourth)!;
        await disk.ReadAsync(new byte[1], 0, None);
        await replaced.CloseAsync();
        await disk.CloseAsync();
        Assert.That(calls.Lines.Where(line => line.Contains('#')), Is.EqualTo(new[]
        {
            "plugin#1.open", "plugin#2.open", "plugin#1.close", "plugin#2.info", "plugin#3.open", "plugin#2.close",
            "plugin#3.info", "plugin#3.write", "plugin#4.open", "plugin#4.info", "plugin#4.read", "plugin#3.close",
            "plugin#4.close",
        }));
    }

    [Test]
    public async Task Detaching_in_a_data_call_leaves_it_its_next_and_takes_it_from_later_ones()
    {
        var calls = new CallRecorder();
        NextContext? old = null;
        var filter = new HookFilter(new Hooks
        {
            Read = async (context, next, buffer, offset, token) =>
            {
                if (next.IsAttached)
                {
                    old = context.SetNext(null);
                }
                await next.ReadAsync(buffer, offset, token);
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(calls), filter);
        await using NextContext disk = await chain.OpenAsync("x");
        await disk.ReadAsync(new byte[1], 0, None);
        Assert.That(calls.Count("plugin", "read"), Is.EqualTo(1));
        Assert.That(
            async () => await disk.ReadAsync(new byte[1], 0, None),
            Throws.InvalidOperationException.With.Message.StartsWith("No context of the layer below is attached"));
        Assert.That(calls.Count("plugin", "close"), Is.Zero, "what was detached is the filter's");
        await disk.CloseAsync();
        Assert.That(calls.Count("plugin", "close"), Is.EqualTo(1), "what a filter forgot ends with the context it was opened for");
        await old!.DisposeAsync();
        calls.AssertBalanced();
    }

    [Test]
    public async Task A_caller_that_gives_up_waiting_for_a_finalize_does_not_stop_it()
    {
        var chain = new RecordedChain("filter");
        var gate = new Gate();
        chain.Plugin.Script.OnCall = (call, _) => call.Callback == "read" ? gate.PassAsync(None) : default;
        NextContext disk = await chain.Backend.OpenAsync("x");
        Task running = disk.ReadAsync(new byte[1], 0, None).AsTask();
        await gate.ArrivedAsync();
        using var cancel = new CancellationTokenSource();
        Task finalizing = disk.FinalizeAsync(cancel.Token).AsTask();
        await cancel.CancelAsync();
        Assert.That(async () => await finalizing.Soon(), Throws.InstanceOf<OperationCanceledException>());
        Task closing = disk.CloseAsync().AsTask();
        Assert.That(closing.IsCompleted, Is.False);
        Assert.That(chain.Calls.Count("filter", "finalize"), Is.Zero, "a call is still in flight");
        gate.Open();
        await running.Soon();
        await closing.Soon();
        Assert.That(chain.Take().TakeLast(4), Is.EqualTo(new[] { "plugin#1.read", "filter#1.finalize", "filter#1.close", "plugin#1.close" }));
        await chain.Backend.DisposeAsync();
    }

    [Test]
    public async Task Waiting_for_calls_can_be_given_up()
    {
        var chain = new RecordedChain("filter");
        var gate = new Gate();
        chain.Plugin.Script.OnCall = (call, _) => call.Callback == "read" ? gate.PassAsync(None) : default;
        await using NbdBackend backend = chain.Backend;
        await using NextContext disk = await backend.OpenAsync("x");
        Task running = disk.ReadAsync(new byte[1], 0, None).AsTask();
        await gate.ArrivedAsync();
        using var cancel = new CancellationTokenSource();
        Task waiting = disk.WaitForCallsAsync(cancel.Token).AsTask();
        await cancel.CancelAsync();
        Assert.That(async () => await waiting.Soon(), Throws.InstanceOf<OperationCanceledException>());
        gate.Open();
        await running.Soon();
        await disk.WaitForCallsAsync(None).Soon();
    }

    [Test]
    public async Task A_second_close_waits_for_the_first()
    {
        var chain = new RecordedChain("filter");
        var gate = new Gate();
        chain.Plugin.Script.OnCall = (call, _) => call.Callback == "close" ? gate.PassAsync(None) : default;
        NextContext disk = await chain.Backend.OpenAsync("x");
        Task first = disk.CloseAsync().AsTask();
        await gate.ArrivedAsync();
        Task second = disk.CloseAsync().AsTask();
        Assert.That((first.IsCompleted, second.IsCompleted), Is.EqualTo((false, false)));
        gate.Open();
        await first.Soon();
        await second.Soon();
        Assert.That(chain.Calls.Count("plugin", "close"), Is.EqualTo(1));
        await chain.Backend.DisposeAsync();
    }

    [Test]
    public async Task One_filter_context_may_use_several_contexts_of_the_layer_below()
    {
        var calls = new CallRecorder();
        var extra = new List<NextContext>();
        var filter = new HookFilter(new Hooks
        {
            Prepare = async (context, _, token) =>
            {
                for (int i = 0; i < 3; i++)
                {
                    NextContext more = await context.Backend.OpenNextAsync(context.ReadOnly, $"more{i}", context, token);
                    await more.PrepareAsync(token);
                    await more.PrepareAsync(token);
                    extra.Add(more);
                }
            },
            Read = (_, _, buffer, offset, token) => extra[(int)(offset % 3)].ReadAsync(buffer, offset, token),
            Finalize = async (_, _, token) =>
            {
                foreach (NextContext more in extra)
                {
                    await more.FinalizeAsync(token);
                }
            },
            Close = async _ =>
            {
                foreach (NextContext more in extra)
                {
                    await more.CloseAsync();
                }
            },
        });
        await using NbdBackend chain = NbdBackend.Compose(new RecordingPlugin(calls), filter);
        NextContext disk = await chain.OpenAsync("x");
        for (int i = 0; i < 6; i++)
        {
            await disk.ReadAsync(new byte[1], i, None);
        }
        await disk.CloseAsync();
        Assert.That(calls.Calls.Where(c => c.Callback == "read").Select(c => c.Context), Is.EqualTo(new[] { 2, 3, 4, 2, 3, 4 }));
        Assert.That(calls.Count("plugin", "close"), Is.EqualTo(4));
        calls.AssertBalanced();
    }
}
