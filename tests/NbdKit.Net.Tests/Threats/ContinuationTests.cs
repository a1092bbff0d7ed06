using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>Plugins whose completions run the server on their own thread, and whose sizes change.</summary>
public sealed class ContinuationTests : WireTest
{
    private const int Requests = 64;

    [Test, Property("Threat", "N10")]
    public async Task A_plugin_may_complete_requests_inline_and_under_its_own_lock([Values] bool structured)
    {
        var gate = new Lock();
        var waiting = new Queue<TaskCompletionSource>();
        var arrived = new SemaphoreSlim(0);
        ServerFixture server = await ServeAsync(new TestExport
        {
            Before = call =>
            {
                lock (gate)
                {
                    // Its continuations run inside SetResult, on purpose.
                    var done = new TaskCompletionSource();
                    waiting.Enqueue(done);
                    arrived.Release();
                    return new ValueTask(done.Task);
                }
            },
        });
        WireClient client = await server.TransmitAsync(structured: structured);
        for (int i = 0; i < 2 * Requests; i++)
        {
            await client.SendRequestAsync(Cmd.Read, (ulong)i, 512);
        }
        for (int i = 0; i < 2 * Requests; i++)
        {
            Assert.That(await arrived.WaitAsync(WireClient.Deadline), $"request {i}");
            await Task.Run(() =>
            {
                lock (gate)
                {
                    waiting.Dequeue().SetResult();
                }
            }).Soon();
            WireReply reply = await client.ReadReplyAsync();
            int at = (int)reply.Call.Offset;
            Assert.That(reply.Data, Is.EqualTo(server.Plugin.Data[at..(at + 512)]));
        }
    }

    [Test, Property("Threat", "P39")]
    public async Task A_size_that_changes_counts_for_those_who_come_later()
    {
        long size = 64 << 10;
        ServerFixture server = await ServeAsync(new TestExport { Configure = info => info with { Size = size } });
        WireClient before = await server.TransmitAsync();
        size = 4096;
        WireClient after = await server.TransmitAsync();
        size = 1L << 40;

        await before.ExpectCallAsync(WireError.Ok, Cmd.Read, 60_000, 512);
        await before.ExpectCallAsync(WireError.Inval, Cmd.Read, 64 << 10, 512);
        await after.ExpectCallAsync(WireError.Inval, Cmd.Read, 4096, 512);
        await after.ExpectCallAsync(WireError.NoSpc, Cmd.Write, 4095, 2, payload: new byte[2]);

        Assert.That((before.Size, after.Size), Is.EqualTo((64ul << 10, 4096ul)));
    }
}
