using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

/// <summary>Zeroes and trims of gigabytes over every plugin that can be written are complete and change nothing beside their range.</summary>
public sealed class CompleteZeroTests
{
    private const long Size = (6L << 30) + (3 << 16) + 512;

    private static readonly Dictionary<string, string> Excluded = new()
    {
        ["eval"] = "its scripts decide",
        ["floppy"] = "read-only",
        ["full"] = "every write fails",
        ["info"] = "read-only",
        ["iso"] = "read-only",
        ["linuxdisk"] = "read-only, or a file system of its own size",
        ["null"] = "keeps nothing",
        ["ones"] = "forgets writes",
        ["ova"] = "read-only",
        ["pattern"] = "compares instead of writing",
        ["random"] = "read-only",
        ["sh"] = "its script decides",
        ["sparse-random"] = "compares instead of writing",
        ["vdi"] = "read-only",
        ["vhd"] = "read-only",
        ["vhdx"] = "read-only",
        ["vmdk"] = "read-only",
        ["zero"] = "read-only",
    };

    private static readonly Dictionary<string, Func<ScratchDirectory, NbdBackend>> Disks = new()
    {
        ["concat"] = _ => Over(chains => new ConcatPlugin { Chains = chains }, Size / 2, Size - (Size / 2)),
        ["data"] = _ => Text("data", $"data=1 2 3", $"size={Size}"),
        ["exports"] = _ => Over(
            chains => new ExportsPlugin
            {
                Exports = new Dictionary<string, ExportChain> { ["disk"] = new(chains[0]) },
                DefaultExport = "disk",
            },
            Size),
        ["file"] = folder => NbdBackend.Compose(new FilePlugin { Path = Sparse(folder, "disk", Size) }),
        ["memory"] = _ => Memory(Size),
        ["memory, compressing"] = _ => NbdBackend.Compose(new MemoryPlugin { Size = Size, Allocator = MemoryAllocator.Compressing }),
        ["mirror"] = _ => Over(chains => new MirrorPlugin { Chains = chains }, Size, Size),
        ["nbd"] = folder => NbdBackend.Compose(new NbdPlugin
        {
            Connect = (name, cancellationToken) => ConnectAsync(Memory(Size), name, cancellationToken),
        }),
        ["ondemand"] = folder => Text("ondemand", "dir=" + folder.Path, $"size={Size / 4096 * 4096}"),
        ["partitioning"] = _ => Over(
            chains => new PartitioningPlugin { Partitions = [new PartitioningMember(chains[0])] }, Size / 512 * 512),
        ["powercut"] = _ => Over(chains => new PowercutPlugin { Chain = chains[0] }, Size),
        ["split"] = folder => NbdBackend.Compose(new SplitPlugin
        {
            Files = [Sparse(folder, "a", Size / 2), Sparse(folder, "b", Size - (Size / 2))],
        }),
        ["stripe"] = _ => Over(chains => new StripePlugin { Chains = chains, StripeSize = 65_536 }, 3L << 30, 3L << 30),
        ["switch"] = _ => Over(chains => new SwitchPlugin { Chain = chains[0] }, Size),
        ["tmpdisk"] = _ => Text("tmpdisk", "type=ext4", $"size={Size / 4096 * 4096}"),
    };

    private static IEnumerable<TestCaseData> Cases()
        => from disk in Disks.Keys from isZero in new[] { true, false } select new TestCaseData(disk, isZero);

    [TestCaseSource(nameof(Cases))]
    public async Task It_is_complete(string name, bool isZero)
    {
        if (name is "ondemand" or "tmpdisk")
        {
            Peer.Require("mke2fs");
        }
        foreach ((long offset, long length) in new[] { (0L, long.MaxValue), (12_345L, 5L << 30), (1L << 30, (1L << 32) + 1) })
        {
            using var folder = new ScratchDirectory();
            await using NbdBackend chain = Disks[name](folder);
            await using NextContext disk = await chain.OpenAsync();
            // The frame of a partition table cannot be changed.
            long start = name == "partitioning" ? Math.Max(offset, 1 << 20) : offset;
            long room = disk.Info.Size - start - (name == "partitioning" ? 1 << 20 : 0);
            long count = Math.Min(length, room);
            byte[] mark = TestData.Random(64, 7);
            foreach (long place in CompletenessCheck.Places(start, count, disk.Info.Size).Where(at => at >= start && at + 64 <= start + room))
            {
                await disk.WriteAsync(mark, place, RequestFlags.None, default);
            }
            var check = new CompletenessCheck(disk);
            await (isZero ? check.ZeroAsync(start, count, RequestFlags.MayTrim) : check.TrimAsync(start, count));
        }
    }

    [Test]
    public void Every_plugin_is_here_or_excluded_with_a_reason()
        => Assert.That(
            new NbdCatalogue().Plugins.Select(plugin => plugin.Name), Is.SubsetOf(Excluded.Keys.Concat(Disks.Keys)));

    private static NbdBackend Memory(long size) => NbdBackend.Compose(new MemoryPlugin { Size = size });

    private static NbdBackend Over(Func<NbdBackend[], INbdPlugin> plugin, params long[] sizes)
        => NbdBackend.Compose(plugin([.. sizes.Select(Memory)]));

    private static NbdBackend Text(string plugin, params string[] parameters)
        => new NbdCatalogue().Compose(
            plugin, [], [.. parameters.Select(text => new KeyValuePair<string, string>(text.Split('=')[0], text.Split('=', 2)[1]))]);

    private static string Sparse(ScratchDirectory folder, string name, long size)
    {
        using FileStream file = File.Create(folder[name]);
        file.SetLength(size);
        return folder[name];
    }

    private static async Task<NbdClient> ConnectAsync(NbdBackend chain, string name, CancellationToken cancellationToken)
    {
        var server = new NbdServer(chain);
        await server.StartAsync(cancellationToken);
        var pipes = new PipePair();
        _ = server.ServeAsync(pipes.Server, cancellationToken);
        return await NbdClient.ConnectAsync(pipes.Client, new NbdClientOptions { ExportName = name }, cancellationToken);
    }
}
