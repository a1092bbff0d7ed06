using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>Filters that manage their contexts themselves, under the clients of a server: every callback of every layer.</summary>
public sealed class ContextServerTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private RecordedChain _record = null!;
    private RecordingFilter _outer = null!;
    private RecordingFilter _inner = null!;

    [SetUp]
    public void SetUp()
    {
        _record = new RecordedChain();
        _outer = new RecordingFilter(_record.Calls, "outer");
        _inner = new RecordingFilter(_record.Calls, "inner");
    }

    [Test]
    public async Task A_filter_that_skips_its_next_serves_alone()
    {
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Open = (_, _) => default,
            Info = (_, _, _) => new(new NbdExportInfo { Size = 4096 }),
            Read = (_, _, buffer, _, _) =>
            {
                buffer.Span.Fill(7);
                return default;
            },
        }))
        {
            WireClient client = await server.TransmitAsync();
            Assert.That((client.Size, await client.ReadDataAsync(0, 2)), Is.EqualTo((4096UL, new byte[] { 7, 7 })));
            await client.SendRequestAsync(Cmd.Disc);
            await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
        }
        Assert.That(Contexts(), Is.EqualTo(new[]
        {
            "outer#1.open", "outer#1.prepare", "outer#1.info", "outer#1.read", "outer#1.finalize", "outer#1.close",
        }));
    }

    [TestCase(false)]
    [TestCase(true)]
    public async Task A_filter_that_opens_two_contexts_ends_its_own_before_the_library_ends_the_other(bool vanishes)
    {
        NextContext? second = null;
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Open = async (context, token) =>
            {
                await context.OpenNextAsync(token);
                second = await context.Backend.OpenNextAsync(true, "second", context, token);
            },
            Prepare = (_, _, token) => second!.PrepareAsync(token),
            Read = async (_, next, buffer, offset, token) =>
            {
                await next.ReadAsync(buffer, offset, token);
                await second!.ReadAsync(buffer, offset, token);
            },
            Finalize = (_, _, token) => second!.FinalizeAsync(token),
            Close = _ => second!.CloseAsync(),
        }))
        {
            WireClient client = await server.TransmitAsync();
            await client.ReadDataAsync(0, 1);
            await LeaveAsync(client, vanishes);
        }
        Assert.That(Contexts(), Is.EqualTo(new[]
        {
            "outer#1.open", "inner#1.open", "plugin#1.open", "inner#2.open", "plugin#2.open",
            "plugin#1.info", "inner#1.prepare", "inner#1.info", "plugin#2.info", "inner#2.prepare", "inner#2.info",
            "outer#1.prepare", "outer#1.info",
            "outer#1.read", "inner#1.read", "plugin#1.read", "inner#2.read", "plugin#2.read",
            "outer#1.finalize", "inner#2.finalize", "inner#1.finalize",
            "outer#1.close", "inner#2.close", "plugin#2.close", "inner#1.close", "plugin#1.close",
        }));
    }

    [Test]
    public async Task A_shared_context_serves_every_client_from_start_to_cleanup()
    {
        NextContext? shared = null;
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Start = async (backend, token) =>
            {
                shared = await backend.OpenNextAsync(false, "common", null, token);
                await shared.PrepareAsync(token);
            },
            Open = (context, _) =>
            {
                context.SetNext(shared);
                return default;
            },
            Cleanup = (_, _) => shared!.CloseAsync(),
        }))
        {
            WireClient first = await server.HaggleAsync();
            Assert.That((await first.InfoAsync("a")).IsAck);
            await first.GoAsync("a");
            WireClient second = await server.TransmitAsync("b");
            await first.WriteDataAsync(0, [42]);
            Assert.That(await second.ReadDataAsync(0, 1), Is.EqualTo(new byte[] { 42 }));
            await LeaveAsync(first, vanishes: true);
            await second.ReadDataAsync(0, 1);
            await LeaveAsync(second, vanishes: false);
            Assert.That(_record.Calls.Count("inner", "finalize"), Is.Zero);
        }
        Assert.That(Contexts("inner", "plugin"), Is.EqualTo(new[]
        {
            "inner#1.open", "plugin#1.open", "plugin#1.info", "inner#1.prepare", "inner#1.info",
            "inner#1.write", "plugin#1.write", "inner#1.read", "plugin#1.read", "inner#1.read", "plugin#1.read",
            "inner#1.finalize", "inner#1.close", "plugin#1.close",
        }));
        Assert.That(_record.Calls.Lines.TakeLast(4), Is.EqualTo(new[]
        {
            "inner#1.close", "plugin#1.close", "inner.cleanup", "plugin.cleanup",
        }));
        Assert.That(_record.Calls.Count("outer", "close"), Is.EqualTo(3));
    }

    [TestCase("goodbye")]
    [TestCase("vanish")]
    [TestCase("stop")]
    public async Task Requests_keep_their_context_when_it_is_replaced_and_both_end_once_however_the_client_ends(string end)
    {
        var gate = new Gate();
        _record.Plugin.Script.OnCall = (call, token) => call is { Callback: "read", Context: 1 } ? gate.PassAsync(token) : default;
        var filter = new HookFilter(new Hooks(), "middle");
        await using (ChainServer server = await ChainServer.StartAsync(
            NbdBackend.Compose(_record.Plugin, _outer, filter, _inner)))
        {
            WireClient client = await server.TransmitAsync();
            WireCall old = await client.SendRequestAsync(Cmd.Read, 0, 1);
            await gate.ArrivedAsync();
            NbdContext context = filter.Context;
            NextContext fresh = await context.Backend.OpenNextAsync(false, "fresh", context, None);
            await fresh.PrepareAsync(None);
            context.CloseWhenIdle(context.SetNext(fresh)!);
            await client.ReadDataAsync(0, 1);
            Assert.That(_record.Calls.Count("plugin", "close"), Is.Zero, "a request still runs on it");
            if (end == "goodbye")
            {
                gate.Open();
                Assert.That((await client.ReadReplyAsync()).Cookie, Is.EqualTo(old.Cookie));
                await LeaveAsync(client, vanishes: false);
            }
            else if (end == "vanish")
            {
                await client.CutAsync();
                gate.Open();
                await client.ExpectEndAsync();
            }
            else
            {
                await server.Server.StopAsync(new CancellationToken(canceled: true)).Soon();
            }
        }
        Assert.That(_record.Calls.Calls.Where(c => c.Callback == "read" && c.Layer == "plugin" && !c.Failed).Select(c => c.Context),
            Is.EqualTo(new[] { 1, 2 }));
        _record.Calls.AssertBalanced();
        Assert.That((_record.Calls.Count("plugin", "close"), _record.Calls.Count("inner", "finalize")), Is.EqualTo((2, 2)));
    }

    [Test]
    public async Task While_nothing_is_attached_requests_fail_and_the_connection_goes_on()
    {
        var filter = new HookFilter(new Hooks(), "middle");
        await using (ChainServer server = await ChainServer.StartAsync(
            NbdBackend.Compose(_record.Plugin, _outer, filter, _inner)))
        {
            WireClient client = await server.TransmitAsync();
            NextContext old = filter.Context.SetNext(null)!;
            await client.ExpectCallAsync(WireError.Io, Cmd.Read, 0, 1);
            await client.ExpectCallAsync(WireError.Io, Cmd.Flush);
            Assert.That(server.Log.Entries.Select(entry => entry.Exception?.Message ?? ""),
                Has.Some.Contains("No context of the layer below is attached"));
            filter.Context.SetNext(old);
            await client.ReadDataAsync(0, 1);
            await filter.Context.SetNext(null)!.DisposeAsync();
            await LeaveAsync(client, vanishes: false);
        }
        _record.Calls.AssertBalanced();
        Assert.That(Contexts().TakeLast(5), Is.EqualTo(new[]
        {
            "inner#1.finalize", "inner#1.close", "plugin#1.close", "outer#1.finalize", "outer#1.close",
        }));
    }

    [TestCase("open")]
    [TestCase("info")]
    public async Task A_client_that_vanishes_while_a_second_context_is_opened_leaves_none_behind(string callback)
    {
        var gate = new Gate();
        _record.Plugin.Script.OnCall = (call, token) => call.Context == 2 && call.Callback == callback ? gate.PassAsync(token) : default;
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Prepare = async (context, _, token) =>
            {
                NextContext second = await context.Backend.OpenNextAsync(false, "second", context, token);
                // Forgotten if this fails, as it will.
                await second.PrepareAsync(token);
            },
        }))
        {
            using var cut = new CancellationTokenSource();
            WireClient client = server.Connect(cut.Token);
            await client.GreetAsync();
            await client.SendOptionAsync(Opt.Go, WireBytes.InfoRequest("disk"u8.ToArray(), []));
            await gate.ArrivedAsync();
            await cut.CancelAsync();
            await client.ExpectEndAsync();
        }
        _record.Calls.AssertBalanced();
        Assert.That(_record.Calls.Count("plugin", "close"), Is.EqualTo(callback == "open" ? 1 : 2));
    }

    private Task<ChainServer> ServeAsync(Hooks middle)
        => ChainServer.StartAsync(NbdBackend.Compose(_record.Plugin, _outer, new HookFilter(middle, "middle"), _inner));

    /// <summary>The calls on contexts of some layers, or of all.</summary>
    private string[] Contexts(params string[] layers)
        => [.. _record.Calls.Calls
            .Where(call => call.Context > 0 && (layers.Length == 0 || layers.Contains(call.Layer)))
            .Select(call => call.ToString())];

    private static async Task LeaveAsync(WireClient client, bool vanishes)
    {
        await (vanishes ? client.CutAsync() : client.SendRequestAsync(Cmd.Disc));
        await client.ExpectEndAsync();
    }
}
