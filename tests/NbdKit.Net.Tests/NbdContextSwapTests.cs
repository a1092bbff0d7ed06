using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Replacing the layer below while calls run on it.</summary>
public sealed class NbdContextSwapTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [Test]
    public async Task A_running_call_keeps_its_context_and_finalize_of_the_old_one_waits_for_it()
    {
        var calls = new CallRecorder();
        var plugin = new RecordingPlugin(calls);
        var gate = new Gate();
        plugin.Script.OnCall = (call, token) => call is { Callback: "read", Context: 1, Offset: 0 } ? gate.PassAsync(token) : default;
        var filter = new HookFilter(new Hooks());
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await using NextContext disk = await chain.OpenAsync("x");

        Task running = disk.ReadAsync(new byte[1], 0, None).AsTask();
        await gate.ArrivedAsync();
        NextContext second = await OpenPreparedAsync(filter.Context);
        NextContext first = filter.Context.SetNext(second)!;
        Task drained = first.WaitForCallsAsync(None).AsTask();
        Task finalized = first.FinalizeAsync(None).AsTask();
        await disk.ReadAsync(new byte[1], 1, None);
        Assert.That((running.IsCompleted, drained.IsCompleted, finalized.IsCompleted), Is.EqualTo((false, false, false)));
        Assert.That(
            async () => await first.ReadAsync(new byte[1], 2, None).Soon(), Throws.Nothing,
            "a call that began on it may still need further ones");
        gate.Open();
        await running.Soon();
        await drained.Soon();
        await finalized.Soon();
        Assert.That(
            async () => await first.ReadAsync(new byte[1], 3, None),
            Throws.InvalidOperationException.With.Message.Contains("finalized"));
        await first.CloseAsync();
        await disk.CloseAsync();
        Assert.That(calls.Lines.Where(line => line.EndsWith(".read") || line.EndsWith(".close")), Is.EqualTo(new[]
        {
            "plugin#1.read", "plugin#2.read", "plugin#1.read", "plugin#1.close", "plugin#2.close",
        }));
    }

    [Test]
    public async Task The_layer_below_can_be_opened_again_in_a_data_call_that_failed_on_it()
    {
        var chain = new RecordedChain();
        // What nbdkit's retry filter does, here without serializing anything.
        var filter = new HookFilter(new Hooks
        {
            Read = async (context, next, buffer, offset, token) =>
            {
                try
                {
                    await next.ReadAsync(buffer, offset, token);
                }
                catch (NbdException)
                {
                    await context.OpenNextAsync(token);
                    await context.Next!.ReadAsync(buffer, offset, token);
                }
            },
        });
        NbdBackend backend = NbdBackend.Compose(chain.Plugin, filter);
        NextContext disk = await backend.OpenAsync("x");
        chain.Plugin.Script.Fail("read", call => call.Context <= 2 ? new NbdException(NbdError.IoError, "bad") : null);
        Assert.That(async () => await disk.ReadAsync(new byte[1], 0, None).Soon(), Throws.InstanceOf<NbdException>());
        await disk.ReadAsync(new byte[1], 0, None).Soon();
        await disk.DisposeAsync().Soon();
        await backend.DisposeAsync();
        Assert.That(chain.Calls.Count("plugin", "close"), Is.EqualTo(3));
        chain.Calls.AssertBalanced();
    }

    [Test]
    public async Task A_context_that_is_closed_when_idle_is_closed_before_the_filter_s_own()
    {
        var chain = new RecordedChain();
        var gate = new Gate();
        chain.Plugin.Script.OnCall = (call, _) => call is { Callback: "read", Context: 1 } ? gate.PassAsync(None) : default;
        var filter = new HookFilter(new Hooks());
        NbdBackend backend = NbdBackend.Compose(chain.Plugin, filter);
        NextContext disk = await backend.OpenAsync("x");
        Task running = disk.ReadAsync(new byte[1], 0, None).AsTask();
        await gate.ArrivedAsync();
        NextContext old = filter.Context.SetNext(await OpenPreparedAsync(filter.Context))!;
        filter.Context.CloseWhenIdle(old);
        Task closing = disk.CloseAsync().AsTask();
        Assert.That((chain.Calls.Count("plugin", "close"), closing.IsCompleted), Is.EqualTo((0, false)));
        gate.Open();
        await running.Soon();
        await closing.Soon();
        Assert.That(chain.Calls.Count("plugin", "close"), Is.EqualTo(2));
        await backend.DisposeAsync();
        chain.Calls.AssertBalanced();
    }

    [Test]
    public async Task Swaps_under_load_lose_no_call_and_close_every_context_once()
    {
        const int Seed = 4711;
        var chain = new RecordedChain("below");
        chain.Plugin.Script.OnCall = async (call, _) =>
        {
            if (call.Callback == "read")
            {
                await Task.Yield();
            }
        };
        var filter = new HookFilter(new Hooks());
        NbdBackend backend = NbdBackend.Compose(chain.Plugin, filter, chain.Filters[0]);
        NextContext disk = await backend.OpenAsync("x");
        var random = new Random(Seed);
        Task[] readers = [.. Enumerable.Range(0, 4).Select(_ => Task.Run(async () =>
        {
            for (int i = 0; i < 300; i++)
            {
                await disk.ReadAsync(new byte[1], i, None);
            }
        }))];
        var leaving = new List<Task>();
        for (int i = 0; i < 40; i++)
        {
            NextContext old = filter.Context.SetNext(await OpenPreparedAsync(filter.Context))!;
            if (random.Next(2) == 0)
            {
                leaving.Add(old.DisposeAsync().AsTask());
            }
            else
            {
                filter.Context.CloseWhenIdle(old);
            }
        }
        await Task.WhenAll(readers).Soon();
        await Task.WhenAll(leaving).Soon();
        await disk.DisposeAsync().Soon();
        await backend.DisposeAsync().Soon();
        Assert.That(chain.Calls.Count("plugin", "read"), Is.EqualTo(1200), $"seed {Seed}");
        Assert.That(chain.Calls.Count("plugin", "close"), Is.EqualTo(41), $"seed {Seed}");
        chain.Calls.AssertBalanced();
    }

    private static async Task<NextContext> OpenPreparedAsync(NbdContext context)
    {
        NextContext next = await context.Backend.OpenNextAsync(context.ReadOnly, context.ExportName, context, None);
        await next.PrepareAsync(None);
        return next;
    }
}
