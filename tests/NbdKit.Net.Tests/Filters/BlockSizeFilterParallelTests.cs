using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class BlockSizeFilterParallelTests
{
    private const int Block = 512;

    private static ModelPlugin Plugin(bool yields = false) => new(
        new byte[65_536], ModelPlugin.Everything with { BlockSize = new BlockSize(Block, 4096) })
    {
        Yields = yields,
    };

    /// <summary>Holds back the next call of a kind until it is told to go on.</summary>
    private static (Task Reached, TaskCompletionSource Go) HoldBack(ModelPlugin plugin, string call)
    {
        var reached = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var go = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        plugin.Before = c =>
        {
            if (c != call)
            {
                return Task.CompletedTask;
            }
            plugin.Before = null;
            reached.SetResult();
            return go.Task;
        };
        return (reached.Task, go);
    }

    private static Func<NextContext, Task>[] Changes { get; } =
    [
        async disk => await disk.WriteAsync(new byte[] { 7 }, 20, RequestFlags.None, default),
        async disk => await disk.WriteAsync(Enumerable.Repeat((byte)7, 4 * Block).ToArray(), 0, RequestFlags.None, default),
        async disk => await disk.ZeroAsync(0, 2 * Block, RequestFlags.None, default),
        async disk => await disk.ZeroAsync(21, 1, RequestFlags.None, default),
    ];

    [Test]
    public async Task A_change_of_the_same_block_waits_until_it_was_written_back(
        [Range(0, 3)] int change, [Values] bool otherConnection)
    {
        ModelPlugin plugin = Plugin();
        plugin.Data.AsSpan(0, 4 * Block).Fill(5);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new BlockSizeFilter());
        await using NextContext disk = await chain.OpenAsync();
        await using NextContext other = await chain.OpenAsync("other");
        (Task reached, TaskCompletionSource go) = HoldBack(plugin, "write 0+512");
        Task first = disk.WriteAsync(new byte[] { 9 }, 10, RequestFlags.None, default).AsTask();
        await reached;
        Task second = Changes[change](otherConnection ? other : disk);
        Assert.That(second.IsCompleted, Is.False);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "read 0+512", "write 0+512" }));
        go.SetResult();
        await first;
        await second;

        byte[] expected = new byte[4 * Block];
        expected.AsSpan().Fill(5);
        expected[10] = 9;
        switch (change)
        {
            case 0: expected[20] = 7; break;
            case 1: expected.AsSpan().Fill(7); break;
            case 2: expected.AsSpan(0, 2 * Block).Clear(); break;
            default: expected[21] = 0; break;
        }
        Assert.That(plugin.Data[..(4 * Block)], Is.EqualTo(expected));
    }

    [Test]
    public async Task Changes_of_other_blocks_and_reads_do_not_wait()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = NbdBackend.Compose(plugin, new BlockSizeFilter());
        await using NextContext disk = await chain.OpenAsync();
        (Task reached, TaskCompletionSource go) = HoldBack(plugin, "write 0+512");
        Task first = disk.WriteAsync(new byte[] { 9 }, 10, RequestFlags.None, default).AsTask();
        await reached;
        await disk.WriteAsync(new byte[] { 9 }, Block + 10, RequestFlags.None, default);
        await disk.WriteAsync(new byte[Block], Block, RequestFlags.None, default);
        await disk.ReadAsync(new byte[10], 5, default);
        await disk.TrimAsync(0, Block, RequestFlags.None, default);
        await disk.FlushAsync(default);
        Assert.That(first.IsCompleted, Is.False);
        go.SetResult();
        await first;
    }

    [Test]
    public async Task A_change_of_a_part_waits_for_a_write_of_the_whole()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = NbdBackend.Compose(plugin, new BlockSizeFilter());
        await using NextContext disk = await chain.OpenAsync();
        (Task reached, TaskCompletionSource go) = HoldBack(plugin, "write 0+1024");
        Task whole = disk.WriteAsync(Enumerable.Repeat((byte)7, 1024).ToArray(), 0, RequestFlags.None, default).AsTask();
        await reached;
        Task part = disk.WriteAsync(new byte[] { 9 }, Block + 1, RequestFlags.None, default).AsTask();
        Task beside = disk.WriteAsync(new byte[1024], 0, RequestFlags.None, default).AsTask();
        Assert.That((part.IsCompleted, beside.IsCompleted), Is.EqualTo((false, false)), "who came later must not overtake");
        go.SetResult();
        await Task.WhenAll(whole, part, beside);
        Assert.That(plugin.Data[Block + 1], Is.Zero);
    }

    [Test]
    public async Task Who_gives_up_waiting_for_a_block_fails_alone()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = NbdBackend.Compose(plugin, new BlockSizeFilter());
        await using NextContext disk = await chain.OpenAsync();
        (Task reached, TaskCompletionSource go) = HoldBack(plugin, "write 0+512");
        Task first = disk.WriteAsync(new byte[] { 9 }, 10, RequestFlags.None, default).AsTask();
        await reached;
        using var cancel = new CancellationTokenSource();
        Task second = disk.WriteAsync(new byte[] { 1 }, 10, RequestFlags.None, cancel.Token).AsTask();
        Task third = disk.WriteAsync(new byte[] { 3 }, 11, RequestFlags.None, default).AsTask();
        await cancel.CancelAsync();
        Assert.That(async () => await second, Throws.InstanceOf<OperationCanceledException>());
        go.SetResult();
        await Task.WhenAll(first, third);
        Assert.That(plugin.Data[9..13], Is.EqualTo(new byte[] { 0, 9, 3, 0 }));
    }

    [Test]
    public async Task Writers_of_interleaved_bytes_lose_nothing([Values(1, 2)] int seed)
    {
        const int Writers = 7;
        const int Size = 8 * Block;
        ModelPlugin plugin = Plugin(yields: true);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new BlockSizeFilter());
        await using NextContext one = await chain.OpenAsync("one");
        await using NextContext two = await chain.OpenAsync("two");
        // Writer w owns the bytes at w, w + Writers, …; a whole block at the end is written by all with the same bytes.
        await Task.WhenAll(Enumerable.Range(0, Writers).Select(async writer =>
        {
            NextContext disk = writer % 2 == 0 ? one : two;
            var random = new Random((seed * 10) + writer);
            int[] own = [.. Enumerable.Range(0, Size / Writers).Select(i => (i * Writers) + writer)];
            random.Shuffle(own);
            foreach (int offset in own.Take(150))
            {
                await disk.WriteAsync(new byte[] { (byte)(offset + 1) }, offset, RequestFlags.None, default);
                if (random.Next(8) == 0)
                {
                    await disk.WriteAsync(Enumerable.Repeat((byte)77, 2 * Block).ToArray(), Size, RequestFlags.None, default);
                }
                if (random.Next(8) == 0)
                {
                    await disk.WriteAsync(new byte[] { 77 }, Size + random.Next(2 * Block), RequestFlags.None, default);
                }
            }
            foreach (int offset in own.Take(150))
            {
                Assert.That(plugin.Data[offset], Is.EqualTo((byte)(offset + 1)), $"byte {offset}, seed {seed}");
            }
        }));
        Assert.That(plugin.Offence, Is.Null);
        Assert.That(plugin.Data.AsSpan(Size + (2 * Block)).ContainsAnyExcept((byte)0), Is.False);
    }
}
