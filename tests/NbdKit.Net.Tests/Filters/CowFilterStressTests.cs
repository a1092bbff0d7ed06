using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Random requests against a model in memory, one at a time and in parallel.</summary>
public class CowFilterStressTests
{
    private const int Block = 4096;

    [Test]
    public async Task Random_requests_agree_with_a_model([Values(1, 2, 3)] int seed, [Values] CowStore store)
    {
        var random = new Random(seed);
        RecordingPlugin plugin = Plugin(random, (20 * Block) + 777);
        byte[] model = [.. plugin.Data];
        await using NbdBackend chain = NbdBackend.Compose(plugin, new CowFilter { BlockSize = Block, Store = store });
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < 600; i++)
        {
            string what = $"seed {seed}, request {i}";
            int offset = random.Next(model.Length);
            int length = 1 + random.Next(Math.Min(random.Next(3) == 0 ? 8 * Block : 2000, model.Length - offset));
            await RunAsync(disk, random, model, offset, length, what);
        }
        var all = new byte[model.Length];
        await disk.ReadAsync(all, 0, default);
        Assert.That(all.AsSpan().SequenceEqual(model), Is.True, $"seed {seed}");
        foreach (Extent extent in await disk.ExtentsFullAsync(0, model.Length, ExtentList.BaseAllocation, default))
        {
            if ((extent.Status & ExtentStatus.Zero) != 0)
            {
                Assert.That(
                    model.AsSpan((int)extent.Offset, (int)extent.Length).IndexOfAnyExcept((byte)0), Is.EqualTo(-1), $"seed {seed}, {extent}");
            }
        }
    }

    // The workers share blocks but no bytes: each owns the slices of 700 bytes whose number it has, modulo the workers. A
    // copy from below that undoes another's write, or a mark that comes too early, shows as a wrong byte.
    [Test]
    public async Task Parallel_requests_to_the_same_blocks_do_not_disturb_each_other(
        [Values(1, 2, 3)] int seed, [Values] CowStore store, [Values] bool onRead)
    {
        const int Workers = 8;
        const int Slice = 700;
        RecordingPlugin plugin = Plugin(new Random(seed), 12 * Block);
        byte[] model = [.. plugin.Data];
        plugin.Script.OnCall = async (_, _) => await Task.Yield();
        await using NbdBackend chain = NbdBackend.Compose(
            plugin, new CowFilter { BlockSize = Block, Store = store, OnRead = onRead });
        await Task.WhenAll(Enumerable.Range(0, Workers).Select(worker => Task.Run(async () =>
        {
            var random = new Random((seed * 1000) + worker);
            await using NextContext disk = await chain.OpenAsync();
            for (int i = 0; i < 250; i++)
            {
                int slice = (random.Next(model.Length / Slice / Workers) * Workers) + worker;
                int offset = (slice * Slice) + random.Next(Slice);
                int length = 1 + random.Next(((slice + 1) * Slice) - offset);
                await RunAsync(disk, random, model, offset, length, $"seed {seed}, worker {worker}, request {i}");
            }
        })));
        await using NextContext check = await chain.OpenAsync();
        var all = new byte[model.Length];
        await check.ReadAsync(all, 0, default);
        Assert.That(all.AsSpan().SequenceEqual(model), Is.True, $"seed {seed}: first difference at {all.AsSpan().CommonPrefixLength(model)}");
    }

    private static async Task RunAsync(NextContext disk, Random random, byte[] model, int offset, int length, string what)
    {
        switch (random.Next(8))
        {
            case 0 or 1 or 2:
                var data = new byte[length];
                random.NextBytes(data);
                await disk.WriteAsync(data, offset, RequestFlags.None, default);
                data.CopyTo(model, offset);
                break;
            case 3:
                await disk.TrimAsync(offset, length, RequestFlags.None, default);
                model.AsSpan(offset, length).Clear();
                break;
            case 4:
                await disk.ZeroAsync(offset, length, random.Next(2) == 0 ? RequestFlags.MayTrim : RequestFlags.None, default);
                model.AsSpan(offset, length).Clear();
                break;
            default:
                var read = new byte[length];
                await disk.ReadAsync(read, offset, default);
                Assert.That(read.AsSpan().SequenceEqual(model.AsSpan(offset, length)), Is.True, what);
                break;
        }
    }

    private static RecordingPlugin Plugin(Random random, int size)
    {
        var data = new byte[size];
        random.NextBytes(data);
        return new RecordingPlugin(new CallRecorder()) { Data = data };
    }
}
