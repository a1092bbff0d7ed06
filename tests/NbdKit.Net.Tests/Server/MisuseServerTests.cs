using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Server;

/// <summary>
/// Every rule of the context API, broken by a filter while it serves a client: the exception names the rule, and one request
/// is lost, or one open.
/// </summary>
public sealed class MisuseServerTests
{
    private const ulong MisuseAt = 4096;
    private const string OutOfRange = "are not inside the 65536 bytes of inner";

    private static readonly CancellationToken None = CancellationToken.None;
    private static readonly byte[] One = new byte[1];

    /// <summary>What a filter does in a read, and what the exception says.</summary>
    private static readonly Misuse[] InRequest =
    [
        new("Read past the end", OutOfRange, (_, next) => next.ReadAsync(new byte[2], 65_535, None)),
        new("Read before the beginning", OutOfRange, (_, next) => next.ReadAsync(One, -1, None)),
        new("Read nothing", OutOfRange, (_, next) => next.ReadAsync(Memory<byte>.Empty, 0, None)),
        new("Write past the end", OutOfRange, (_, next) => next.WriteAsync(One, long.MaxValue, RequestFlags.None, None)),
        new("Trim too much", OutOfRange, (_, next) => next.TrimAsync(1, long.MaxValue, RequestFlags.None, None)),
        new("Zero nothing", OutOfRange, (_, next) => next.ZeroAsync(0, 0, RequestFlags.None, None)),
        new("Cache past the end", OutOfRange, (_, next) => next.CacheAsync(65_536, 1, None)),
        new("Ask for extents past the end", OutOfRange,
            (_, next) => next.ExtentsAsync(0, 65_537, RequestFlags.None, new ExtentList(0, 65_537), None)),
        new("Write with a flag of zeroes", "The flags MayTrim are not allowed",
            (_, next) => next.WriteAsync(One, 0, RequestFlags.MayTrim, None)),
        new("Trim with a flag of zeroes", "The flags FastZero are not allowed",
            (_, next) => next.TrimAsync(0, 1, RequestFlags.FastZero, None)),
        new("Zero with a flag of extents", "The flags RequestOne are not allowed",
            (_, next) => next.ZeroAsync(0, 1, RequestFlags.RequestOne, None)),
        new("Ask for extents with FUA", "The flags Fua are not allowed",
            (_, next) => next.ExtentsAsync(0, 1, RequestFlags.Fua, new ExtentList(0, 1), None)),
        new("Write where that is not supported", "inner does not support write",
            (context, _) => WithAsync(context, readOnly: true, other => other.WriteAsync(One, 0, RequestFlags.None, None))),
        new("Trim where that is not supported", "inner does not support trim",
            (context, _) => WithPoorAsync(context, other => other.TrimAsync(0, 1, RequestFlags.None, None))),
        new("Zero where that is not supported", "inner does not support zero",
            (context, _) => WithPoorAsync(context, other => other.ZeroAsync(0, 1, RequestFlags.None, None))),
        new("Zero fast where that is not supported", "inner does not support fast zero",
            (context, _) => WithSlowAsync(context, other => other.ZeroAsync(0, 1, RequestFlags.FastZero, None))),
        new("Write with FUA where that is not supported", "inner does not support FUA",
            (context, _) => WithPoorAsync(context, other => other.WriteAsync(One, 0, RequestFlags.Fua, None))),
        new("Flush where that is not supported", "inner does not support flush",
            (context, _) => WithPoorAsync(context, other => other.FlushAsync(None))),
        new("Cache where that is not supported", "inner does not support cache",
            (context, _) => WithPoorAsync(context, other => other.CacheAsync(0, 1, None))),
        new("Read before prepare", "inner is open: it takes calls between prepare and finalize only", async (context, _) =>
        {
            await using NextContext other = await OpenAsync(context);
            await other.ReadAsync(One, 0, None);
        }),
        new("Ask for the size before prepare", "inner is open: it takes calls", async (context, _) =>
        {
            await using NextContext other = await OpenAsync(context);
            Assert.That(other.Info.Size, Is.Zero);
        }),
        new("Read after finalize", "inner is finalized", async (context, _) =>
        {
            await using NextContext other = await OpenAsync(context);
            await other.PrepareAsync(None);
            await other.FinalizeAsync(None);
            await other.ReadAsync(One, 0, None);
        }),
        new("Read after close", "inner is closed", async (context, _) =>
        {
            NextContext other = await OpenAsync(context);
            await other.PrepareAsync(None);
            await other.CloseAsync();
            await other.ReadAsync(One, 0, None);
        }),
        new("Prepare after finalize", "inner is finalized: it cannot be prepared", async (context, _) =>
        {
            await using NextContext other = await OpenAsync(context);
            await other.PrepareAsync(None);
            await other.FinalizeAsync(None);
            await other.PrepareAsync(None);
        }),
        new("Finalize after close", "inner is closed: it cannot be finalized", async (context, _) =>
        {
            NextContext other = await OpenAsync(context);
            await other.CloseAsync();
            await other.FinalizeAsync(None);
        }),
        new("Finalize what is attached", "inner is attached: the library finalizes it", (_, next) => next.FinalizeAsync(None)),
        new("Close what is attached", "inner is attached: the library closes it", (_, next) => next.CloseAsync()),
        new("Close what is attached when it is idle", "inner is attached: the library closes it", (context, next) =>
        {
            context.CloseWhenIdle(next);
            return default;
        }),
        new("Attach what is attached", "is attached elsewhere", (context, next) => Attach(context, next)),
        new("Attach without prepare", "inner must be prepared before it is attached", async (context, _) =>
        {
            await using NextContext other = await OpenAsync(context);
            context.SetNext(other);
        }),
        new("Attach what is closed", "inner is closed: it cannot be attached", async (context, _) =>
        {
            NextContext other = await OpenAsync(context);
            await other.CloseAsync();
            context.SetNext(other);
        }),
        new("Attach a layer that is not the next", "A context of below was attached to outer", async (context, _) =>
        {
            await using NextContext other = await context.Backend.Next!.OpenNextAsync(false, "x", null, None);
            context.SetNext(other);
        }),
        new("Open below a plugin", "plugin is a plugin: there is no layer below",
            async (context, _) => await context.Backend.Next!.Next!.Next!.OpenNextAsync(false, "x", null, None)),
        new("Open for a context of another layer", "it opens only for its own",
            async (context, _) => await context.Backend.Next!.OpenNextAsync(false, "x", context, None)),
        new("Start the chain from inside", "is not the outermost layer",
            (context, _) => context.Backend.Next!.StartAsync()),
    ];

    private RecordedChain _below = null!;
    private CallRecorder _calls = null!;
    private Misuse? _misuse;

    [SetUp]
    public void SetUp()
    {
        _below = new RecordedChain();
        _calls = _below.Calls;
        _misuse = null;
    }

    [TestCaseSource(nameof(InRequest))]
    public async Task In_a_request_it_fails_that_request_alone(Misuse misuse)
    {
        _misuse = misuse;
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Read = (context, next, buffer, offset, token)
                => offset == (long)MisuseAt ? _misuse.Run(context, next) : next.ReadAsync(buffer, offset, token),
        }))
        {
            WireClient other = await server.TransmitAsync();
            WireClient client = await server.TransmitAsync();
            await client.ExpectCallAsync(WireError.Io, Cmd.Read, MisuseAt, 1);
            Assert.That(Failures(server), Has.Some.Contains(misuse.Rule));
            await client.ReadDataAsync(0, 512);
            await client.WriteDataAsync(0, [1]);
            await other.ReadDataAsync(0, 512);
            await (await server.TransmitAsync()).ReadDataAsync(0, 1);
        }
        _calls.AssertBalanced();
    }

    [TestCase("open")]
    [TestCase("prepare")]
    [TestCase("info")]
    public async Task While_an_export_is_opened_it_fails_that_open_alone(string callback)
    {
        bool misuse = true;
        async ValueTask BreakAsync(NbdContext context, NextContext? next)
        {
            if (misuse)
            {
                // Before prepare there is nothing to call; afterwards there is nothing beyond the end.
                await (next ?? context.Next)!.ReadAsync(new byte[2], 65_535, None);
            }
        }
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Open = async (context, token) =>
            {
                await context.OpenNextAsync(token);
                if (callback == "open")
                {
                    await BreakAsync(context, null);
                }
            },
            Prepare = (context, next, _) => callback == "prepare" ? BreakAsync(context, next) : default,
            Info = async (context, next, _) =>
            {
                if (callback == "info")
                {
                    await BreakAsync(context, next);
                }
                return next.Info;
            },
        }))
        {
            WireClient client = await server.HaggleAsync();
            Assert.That((await client.TryGoAsync("disk")).IsAck, Is.False);
            Assert.That(Failures(server), Has.Some.Contains(callback == "open" ? "inner is open: it takes calls" : OutOfRange));
            misuse = false;
            await client.GoAsync("disk");
            await client.ReadDataAsync(0, 1);
        }
        _calls.AssertBalanced();
    }

    [Test]
    public async Task At_the_end_of_a_connection_it_is_logged_and_all_is_closed_all_the_same()
    {
        NextContext? kept = null;
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Finalize = async (context, next, token) =>
            {
                kept = next;
                NextContext other = await context.Backend.OpenNextAsync(false, "x", context, token);
                await other.PrepareAsync(token);
                context.SetNext(other);
            },
            Close = _ => kept!.ReadAsync(One, 0, None),
        }))
        {
            WireClient client = await server.TransmitAsync();
            await client.SendRequestAsync(Cmd.Disc);
            await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
            Assert.That(server.Warnings.Take(3), Is.EqualTo(new[]
            {
                "outer failed in finalize",
                "outer failed in close",
                "outer left a context of inner open that it had opened and not attached; it was closed",
            }));
            Assert.That(Failures(server), Has.Some.Contains("The context of outer is closing: nothing can be attached to it"));
            Assert.That(Failures(server), Has.Some.Contains("inner is finalized"));
            await (await server.TransmitAsync()).ReadDataAsync(0, 1);
        }
        _calls.AssertBalanced();
    }

    [Test]
    public async Task What_was_detached_and_forgotten_is_closed_at_the_end_of_the_connection_that_it_was_opened_for()
    {
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Read = async (context, next, buffer, offset, token) =>
            {
                await next.ReadAsync(buffer, offset, token);
                NextContext other = await OpenAsync(context);
                await other.PrepareAsync(token);
                context.SetNext(other);
            },
        }))
        {
            WireClient client = await server.TransmitAsync();
            for (int i = 0; i < 3; i++)
            {
                await client.ReadDataAsync(0, 1);
            }
            await client.SendRequestAsync(Cmd.Disc);
            await client.ExpectEndAsync(NbdDisconnectReason.ClientDone);
            Assert.That((_calls.Count("plugin", "open"), _calls.Count("plugin", "close")), Is.EqualTo((4, 4)));
            Assert.That(server.Warnings.Count(text => text.StartsWith("outer left a context of inner open")), Is.EqualTo(3));
        }
        _calls.AssertBalanced();
    }

    [Test]
    public async Task A_call_that_waits_for_itself_is_lost_with_its_connection_and_nothing_else()
    {
        var waiting = new Gate();
        await using (ChainServer server = await ServeAsync(new Hooks
        {
            Read = async (context, next, buffer, offset, token) =>
            {
                if (offset != (long)MisuseAt)
                {
                    await next.ReadAsync(buffer, offset, token);
                    return;
                }
                NextContext own = context.SetNext(null)!;
                waiting.Open();
                await waiting.PassAsync(token);
                await own.FinalizeAsync(token);
            },
        }))
        {
            WireClient other = await server.TransmitAsync();
            WireClient client = await server.TransmitAsync();
            await client.SendRequestAsync(Cmd.Read, MisuseAt, 1);
            await waiting.ArrivedAsync();
            await client.ExpectCallAsync(WireError.Io, Cmd.Flush);
            Assert.That(Failures(server), Has.Some.Contains("No context of the layer below is attached"));
            await client.CutAsync();
            await other.ReadDataAsync(0, 1);
            await other.SendRequestAsync(Cmd.Disc);
            await server.Server.StopAsync(new CancellationToken(canceled: true)).Soon();
        }
        _calls.AssertBalanced();
    }

    private async Task<ChainServer> ServeAsync(Hooks outer)
    {
        _below.Plugin.Info = (_, info) => info;
        var inner = new HookFilter(
            new Hooks
            {
                Info = (context, next, _) => new(context.ExportName switch
                {
                    "poor" => next.Info with
                    {
                        CanTrim = false, CanZero = Support.None, CanFua = Support.None, CanFlush = false, CanCache = Support.None,
                    },
                    "slow" => next.Info with { CanFastZero = false },
                    _ => next.Info,
                }),
            },
            "inner");
        return await ChainServer.StartAsync(
            NbdBackend.Compose(_below.Plugin, new HookFilter(outer, "outer"), inner, new RecordingFilter(_calls, "below")));
    }

    /// <summary>The messages of all exceptions that were logged.</summary>
    private static IReadOnlyList<string> Failures(ChainServer server)
        => [.. server.Log.Entries.Where(entry => entry.Exception is not null).Select(entry => entry.Exception!.Message)];

    private static ValueTask Attach(NbdContext context, NextContext next)
    {
        context.SetNext(next);
        return default;
    }

    private static ValueTask<NextContext> OpenAsync(NbdContext context, string name = "x", bool readOnly = false)
        => context.Backend.OpenNextAsync(readOnly, name, context, None);

    private static async ValueTask WithAsync(
        NbdContext context, bool readOnly, Func<NextContext, ValueTask> use, string name = "x")
    {
        await using NextContext other = await OpenAsync(context, name, readOnly);
        await other.PrepareAsync(None);
        await use(other);
    }

    private static ValueTask WithPoorAsync(NbdContext context, Func<NextContext, ValueTask> use)
        => WithAsync(context, false, use, "poor");

    private static ValueTask WithSlowAsync(NbdContext context, Func<NextContext, ValueTask> use)
        => WithAsync(context, false, use, "slow");

    /// <summary>One rule and how to break it.</summary>
    public sealed record Misuse(string Name, string Rule, Func<NbdContext, NextContext, ValueTask> Run)
    {
        public override string ToString() => Name;
    }
}
