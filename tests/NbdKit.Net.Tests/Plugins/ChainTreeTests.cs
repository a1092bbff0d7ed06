using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

/// <summary>
/// Random trees of plugins that are made of chains, with disks in memory or in files as leaves, and random histories of requests on
/// them, against a plain array of bytes. For a long run set NBDKIT_TREE_COUNT; a failure prints the seed of its tree.
/// </summary>
public class ChainTreeTests
{
    [Test]
    public async Task Any_tree_of_chains_behaves_like_an_array_of_bytes()
    {
        int first = FromEnvironment("NBDKIT_TREE_SEED", 1);
        int count = FromEnvironment("NBDKIT_TREE_COUNT", 60);
        for (int seed = first; seed < first + count; seed++)
        {
            var random = new Random(seed);
            using var folder = new ScratchDirectory();
            (NbdBackend chain, string text) = Tree(random, depth: 3, folder);
            await using NbdBackend tree = chain;
            await using NextContext disk = await tree.OpenAsync();
            byte[] model = new byte[disk.Info.Size];
            if (model.Length > 0)
            {
                // Of a mirror, each member may make something else of a trim.
                bool trims = !text.Contains("mirror", StringComparison.Ordinal);
                await new ChainHistory(disk, model, random, $"seed {seed}: {text}") { Trims = trims }.RunAsync(100);
            }
        }
    }

    private static int FromEnvironment(string name, int otherwise)
        => int.TryParse(Environment.GetEnvironmentVariable(name), out int value) ? value : otherwise;

    private static (NbdBackend Chain, string Text) Tree(Random random, int depth, ScratchDirectory folder)
    {
        int kind = depth == 0 ? 0 : random.Next(7);
        if (kind == 0)
        {
            return Leaf(random, folder);
        }
        if (kind == 6)
        {
            // One partition of several; of a disk without any bytes there is none.
            (NbdBackend Chain, string Text)[] parts = [.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => Leaf(random, folder))];
            var disk = new PartitioningPlugin { Partitions = [.. parts.Select(part => new PartitioningMember(part.Chain))] };
            int number = random.Next(parts.Length) + 1;
            NbdBackend partition = Filtered(disk, random, out string above, new PartitionFilter { Partition = number });
            return (partition, $"{above}partitioning({string.Join(", ", parts.Select(part => part.Text))})");
        }
        (NbdBackend Chain, string Text)[] members
            = [.. Enumerable.Range(0, kind > 3 ? 1 : random.Next(1, 4)).Select(_ => Tree(random, depth - 1, folder))];
        NbdBackend[] chains = [.. members.Select(member => member.Chain)];
        long stripe = 512 << random.Next(8);
        INbdPlugin plugin = kind switch
        {
            1 => new ConcatPlugin { Chains = chains },
            2 => new StripePlugin { Chains = chains, StripeSize = stripe },
            3 => new MirrorPlugin { Chains = chains, ReadPolicy = (MirrorReadPolicy)random.Next(2) },
            4 => new SwitchPlugin { Chain = chains[0] },
            _ => new ExportsPlugin
            {
                Exports = new Dictionary<string, ExportChain> { ["disk"] = new(chains[0]) },
                DefaultExport = "disk",
            },
        };
        string inside = string.Join(", ", members.Select(member => member.Text));
        return (Filtered(plugin, random, out string text), $"{text}{plugin.Name}{(kind == 2 ? stripe : "")}({inside})");
    }

    private static (NbdBackend Chain, string Text) Leaf(Random random, ScratchDirectory folder)
    {
        int size = random.Next(1, 40) * 4096;
        INbdPlugin plugin;
        string text;
        switch (random.Next(4))
        {
            case 0:
                plugin = new FilePlugin { Path = File(size) };
                text = $"file({size})";
                break;
            case 1:
                int[] sizes = [.. Enumerable.Range(0, random.Next(1, 4)).Select(_ => random.Next(1, 20) * 4096)];
                plugin = new SplitPlugin { Files = [.. sizes.Select(File)] };
                text = $"split({string.Join(", ", sizes)})";
                break;
            default:
                var memory = new MemoryPlugin { Size = size, Allocator = (MemoryAllocator)random.Next(2) };
                plugin = memory;
                text = $"memory({size}, {memory.Allocator})";
                break;
        }
        return (Filtered(plugin, random, out string filters), filters + text);

        string File(int length) => folder.WriteHole($"disk{random.Next()}", length);
    }

    private static NbdBackend Filtered(INbdPlugin plugin, Random random, out string text, params INbdFilter[] below)
    {
        INbdFilter[] filters = random.Next(8) switch
        {
            0 => [new NozeroFilter { Mode = (ZeroMode)random.Next(1, 4) }],
            1 => [new NoextentsFilter()],
            2 => [new NoparallelFilter { Serialize = (ThreadModel)random.Next(1, 4) }],
            3 => [new BlockSizeFilter { MinBlock = 512 }],
            4 => [new FuaFilter { Mode = FuaMode.Emulate }],
            5 => [new CowFilter()],
            _ => [],
        };
        filters = [.. filters, .. below];
        text = string.Concat(filters.Select(filter => filter.Name + "|"));
        return NbdBackend.Compose(plugin, filters);
    }
}
