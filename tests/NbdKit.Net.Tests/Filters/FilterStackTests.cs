using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>
/// Random stacks of filters, and random histories of requests on them, against a plain array of bytes. A failure prints
/// the seed of its stack: run it alone with NBDKIT_STACK_SEED=that and NBDKIT_STACK_COUNT=1. For a long run set the
/// count.
/// </summary>
public class FilterStackTests
{
    private const int LargestDepth = 6;

    private static int FromEnvironment(string name, int otherwise)
        => int.TryParse(Environment.GetEnvironmentVariable(name), out int value) ? value : otherwise;

    [Test]
    public async Task Any_stack_of_filters_behaves_like_its_model()
    {
        int seed = FromEnvironment("NBDKIT_STACK_SEED", 1);
        int count = FromEnvironment("NBDKIT_STACK_COUNT", 300);
        for (int i = 0; i < count; i++)
        {
            await RunAsync(seed + i);
        }
    }

    [Test]
    public void Every_filter_of_the_table_gets_on_a_stack()
    {
        var seen = new HashSet<string>();
        for (int seed = 1; seed <= 200; seed++)
        {
            seen.UnionWith(Build(new Random(seed)).Names);
        }
        Assert.That(seen, Is.SupersetOf(StackGenerators.All.Select(g => g.Name)).And.SupersetOf(new[] { "checkwrite", "ddrescue" }));
    }

    internal static async Task RunAsync(int seed)
    {
        var random = new Random(seed);
        (ModelPlugin plugin, List<INbdFilter> filters, StackModel model, List<string> names) = Build(random);
        string stack = $"seed {seed}: {string.Join(" | ", names)}";
        await using NbdBackend chain = NbdBackend.Compose(plugin, filters);
        NextContext disk;
        try
        {
            if (filters.Count > 0 && filters[0] is DdrescueFilter rescue)
            {
                await File.WriteAllTextAsync(rescue.MapFile, StackGenerators.RescueMapOf(model));
            }
            disk = await chain.OpenAsync();
        }
        catch (Exception e)
        {
            throw new AssertionException($"{stack}: cannot be opened: {e}", e);
        }
        finally
        {
            if (filters.Count > 0 && filters[0] is DdrescueFilter rescue)
            {
                File.Delete(rescue.MapFile);
            }
        }
        await using (disk)
        {
            Assert.That(disk.Info, Is.EqualTo(model.Info with { MetaContexts = disk.Info.MetaContexts, CanReadSparse = disk.Info.CanReadSparse }), stack);
            await new StackHistory(disk, plugin, model, random, stack).RunAsync();
        }
        // A filter may keep what it opened until the end of the chain.
        await chain.DisposeAsync();
        Assert.That(plugin.Data.AsSpan().SequenceEqual(model.Content), Is.True, $"{stack}: the content differs at the end");
    }

    private static (ModelPlugin Plugin, List<INbdFilter> Filters, StackModel Model, List<string> Names) Build(Random random)
    {
        NbdExportInfo info = RandomInfo(random);
        int size = random.Next(4) switch { 0 => random.Next(1, 4096), 1 => 131_071, _ => random.Next(65_536, 163_840) };
        // Now and then the bytes are at the end of the largest disk there can be.
        bool isHuge = random.Next(6) == 0;
        long start = isHuge ? long.MaxValue / 65_536 * 65_536 : 0;
        if (isHuge)
        {
            start -= 65_536;
            size = 131_071;
        }
        byte[] content = new byte[size];
        random.NextBytes(content);
        for (int i = random.Next(20); i > 0; i--)
        {
            int from = random.Next(size);
            content.AsSpan(from, random.Next(Math.Min(20_000, size - from))).Clear();
        }
        // A filter that opens everything below read-only is felt by the layers below it as much as by those above.
        bool isReadOnly = random.Next(8) == 0;
        var model = new StackModel(content, info with { CanWrite = info.CanWrite && !isReadOnly }, start);
        var filters = new List<INbdFilter>();
        var names = new List<string>();
        int depth = random.Next(LargestDepth + (isReadOnly ? 0 : 1));
        int window = isHuge ? random.Next(2) : -1;
        for (int i = 0; i < depth || i <= window; i++)
        {
            StackGenerator generator = StackGenerators.All[random.Next(StackGenerators.All.Count)];
            INbdFilter? filter = i == window ? StackGenerators.ToBackedPart(model, start) : generator.Create(model, random);
            if (filter is FilterPair pair)
            {
                filters.Insert(0, pair.Below);
                names.Insert(0, pair.Below.Name);
                filter = pair.Above;
            }
            if (filter is not null)
            {
                filters.Insert(0, filter);
                names.Insert(0, i == window ? "offset" : generator.Name);
            }
        }
        for (int i = 0; i < filters.Count; i++)
        {
            filters[i] = filters[i] is LateFilter late ? late.Make() : filters[i];
        }
        if (isReadOnly)
        {
            // What opens everything below read-only; some of it does more, which the model knows of the top only.
            (INbdFilter readOnly, string name) = StackGenerators.ReadOnlyBelow(model, random);
            int place = readOnly is ReadonlyFilter ? random.Next(filters.Count + 1) : 0;
            filters.Insert(place, readOnly);
            names.Insert(place, name);
        }
        var plugin = new ModelPlugin(content, info, new Random(random.Next()))
        {
            Base = start,
            Yields = random.Next(3) == 0,
            RecordsCalls = false,
            ThreadModel = random.Next(4) == 0 ? (ThreadModel)random.Next(5) : ThreadModel.Parallel,
        };
        return (plugin, filters, model, names);
    }

    private static NbdExportInfo RandomInfo(Random random)
    {
        bool Chance(int of = 4) => random.Next(of) != 0;
        bool flush = Chance();
        Support zero = (Support)random.Next(3);
        return new NbdExportInfo
        {
            Size = 0,
            BlockSize = random.Next(5) switch
            {
                0 => new BlockSize(512, 4096, 8192),
                1 => new BlockSize(4096, 4096, 65_536),
                2 => new BlockSize(512, 65_536),
                3 => new BlockSize(1, 512, 12_345),
                _ => default,
            },
            Description = Chance(2) ? "a model" : null,
            CanWrite = Chance(8),
            CanFlush = flush,
            CanTrim = Chance(),
            IsRotational = Chance(2),
            CanZero = zero,
            CanFastZero = Chance(2),
            CanFua = random.Next(3) switch { 0 => Support.Native, 1 when flush => Support.Emulate, _ => Support.None },
            CanCache = (Support)random.Next(3),
            CanMultiConn = Chance(2),
            CanExtents = Chance(),
            CanReadSparse = (Support)random.Next(3),
        };
    }
}
