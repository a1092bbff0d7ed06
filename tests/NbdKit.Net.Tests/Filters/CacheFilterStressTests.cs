using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>
/// Connections in parallel against a model in memory. The workers share blocks but no bytes: each owns the slices of 700
/// bytes whose number it has, modulo the workers. A block that is lost, or written below when it should not be any more,
/// shows as a wrong byte.
/// </summary>
public class CacheFilterStressTests
{
    private const int Block = 4096;
    private const int Workers = 6;
    private const int Slice = 700;

    [Test]
    public async Task Parallel_requests_to_the_same_blocks_do_not_disturb_each_other(
        [Values(1, 2)] int seed, [Values] CacheMode mode, [Values(null, 3 * Block, 8 * Block)] int? maxSize)
    {
        ModelPlugin plugin = Plugin(seed);
        byte[] model = [.. plugin.Data];
        using var store = new FaultyStore(Block) { Capacity = seed == 1 ? 6 : int.MaxValue };
        var filter = new CacheFilter
        {
            MinBlockSize = Block,
            Mode = mode,
            MaxSize = maxSize,
            OnRead = seed == 2,
            StoreFactory = () => store,
        };
        await using (NbdBackend chain = NbdBackend.Compose(plugin, filter))
        {
            await using NextContext held = await chain.OpenAsync();
            await Task.WhenAll(Enumerable.Range(0, Workers).Select(worker => Task.Run(async () =>
            {
                var random = new Random((seed * 1000) + worker);
                for (int round = 0; round < 3; round++)
                {
                    await using NextContext disk = await chain.OpenAsync();
                    for (int i = 0; i < 50; i++)
                    {
                        await OneAsync(disk, random, plugin, model, worker, $"seed {seed}, worker {worker}, request {round}.{i}");
                    }
                }
            })));
            var all = new byte[model.Length];
            await held.ReadAsync(all, 0, default);
            Assert.That(all.AsSpan().SequenceEqual(model), Is.True, $"seed {seed}: first difference at {all.AsSpan().CommonPrefixLength(model)}");
        }
        Assert.That(plugin.Data.AsSpan().SequenceEqual(model), Is.True, $"seed {seed}: first difference below at {plugin.Data.AsSpan().CommonPrefixLength(model)}");
        Assert.That(plugin.Offence, Is.Null);
    }

    private static async Task OneAsync(
        NextContext disk, Random random, ModelPlugin plugin, byte[] model, int worker, string what)
    {
        int slice = (random.Next(model.Length / Slice / Workers) * Workers) + worker;
        int offset = (slice * Slice) + random.Next(Slice);
        int length = 1 + random.Next(((slice + 1) * Slice) - offset);
        Memory<byte> mine = model.AsMemory(offset, length);
        switch (random.Next(12))
        {
            case < 5:
                random.NextBytes(mine.Span);
                RequestFlags fua = random.Next(4) == 0 ? RequestFlags.Fua : RequestFlags.None;
                await disk.WriteAsync(mine, offset, fua, default);
                if (fua != RequestFlags.None)
                {
                    CheckStable(disk, plugin, mine, offset, what);
                }
                break;
            case 5:
                await disk.ZeroAsync(offset, length, RequestFlags.MayTrim, default);
                mine.Span.Clear();
                break;
            case 6:
                await disk.TrimAsync(offset, length, RequestFlags.None, default);
                await disk.ReadAsync(mine, offset, default);
                break;
            case 7:
                await disk.CacheAsync(offset, length, default);
                break;
            case 8:
                await disk.FlushAsync(default);
                CheckStable(disk, plugin, mine, offset, what);
                break;
            default:
                var read = new byte[length];
                await disk.ReadAsync(read, offset, default);
                Assert.That(read.AsSpan().SequenceEqual(mine.Span), Is.True, what);
                break;
        }
    }

    // What was flushed would survive a crash now: nobody else writes these bytes.
    private static void CheckStable(NextContext disk, ModelPlugin plugin, Memory<byte> mine, int offset, string what)
    {
        bool ignoresFlush = disk.Backend.Filter is CacheFilter { Mode: CacheMode.Unsafe };
        bool isStable = plugin.Stable.AsSpan(offset, mine.Length).SequenceEqual(mine.Span);
        Assert.That(isStable || ignoresFlush, Is.True, $"{what}: not stable");
    }

    private static ModelPlugin Plugin(int seed)
    {
        var random = new Random(seed);
        var data = new byte[12 * Block];
        random.NextBytes(data);
        return new ModelPlugin(data, random: new Random(seed)) { Yields = true, RecordsCalls = false };
    }
}
