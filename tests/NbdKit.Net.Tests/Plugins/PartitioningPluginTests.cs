using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class PartitioningPluginTests
{
    private static PartitioningMember Member(int size, int seed = 1, long alignment = 4096)
        => new(NbdBackend.Compose(new ModelPlugin(TestData.Random(size, seed)))) { Alignment = alignment };

    private static PartitioningPlugin Disk(PartitioningType type, params PartitioningMember[] members)
        => new() { Partitions = members, Type = type };

    [TestCase(PartitioningType.Auto, 1)]
    [TestCase(PartitioningType.Auto, 5)]
    [TestCase(PartitioningType.Mbr, 4)]
    [TestCase(PartitioningType.Mbr, 5)]
    [TestCase(PartitioningType.Mbr, 9)]
    [TestCase(PartitioningType.Gpt, 3)]
    [TestCase(PartitioningType.Gpt, 130)]
    public async Task The_partition_filter_finds_each_member(PartitioningType type, int count)
    {
        int Size(int i) => 700 + (i * 1111);
        bool isMbr = type == PartitioningType.Mbr || (type == PartitioningType.Auto && count <= 4);
        foreach (int i in new[] { 0, Math.Min(count - 1, 3), count / 2, count - 1 }.Distinct())
        {
            PartitioningMember[] members = [.. Enumerable.Range(0, count).Select(n => Member(Size(n), n, 512 << (n % 4)))];
            int number = isMbr && count > 4 && i >= 3 ? i + 2 : i + 1;
            await using NbdBackend chain = NbdBackend.Compose(Disk(type, members), new PartitionFilter { Partition = number });
            await using NextContext partition = await chain.OpenAsync();

            byte[] expected = new byte[(Size(i) + 511) / 512 * 512];
            TestData.Random(Size(i), i).CopyTo(expected, 0);
            Assert.That(await TestData.ReadAsync(partition, 0, (int)partition.Info.Size), Is.EqualTo(expected), $"partition {number}");
        }
    }

    [Test]
    public async Task Sectors_are_as_large_as_the_members_blocks()
    {
        NbdExportInfo info = ModelPlugin.Everything with { BlockSize = new BlockSize(4096, 4096) };
        var model = new ModelPlugin(TestData.Random(8192), info);
        await using NbdBackend chain = NbdBackend.Compose(
            Disk(PartitioningType.Gpt, new PartitioningMember(NbdBackend.Compose(model))), new PartitionFilter { Partition = 1 });
        await using NextContext partition = await chain.OpenAsync();

        Assert.That(await TestData.ReadAsync(partition, 0, 8192), Is.EqualTo(model.Data));
        Assert.That(model.Offence, Is.Null);
    }

    [Test]
    public async Task The_table_and_the_gaps_take_only_what_they_hold([Values(PartitioningType.Mbr, PartitioningType.Gpt)] PartitioningType type)
    {
        await using NbdBackend chain = NbdBackend.Compose(Disk(type, Member(1000, 1, 65_536), Member(1000, 2, 65_536)));
        await using NextContext disk = await chain.OpenAsync();
        byte[] before = await TestData.ReadAsync(disk, 0, (int)disk.Info.Size);

        await disk.WriteAsync(before, 0, RequestFlags.Fua, default);
        await disk.ZeroAsync(0, 440, RequestFlags.FastZero, default);
        await disk.ZeroAsync(66_536, 1000, RequestFlags.None, default);
        await disk.TrimAsync(0, 65_536, RequestFlags.Fua, default);
        await disk.CacheAsync(0, disk.Info.Size, default);
        NbdError Written(long offset) => TestData.Failure(
            async () => await disk.WriteAsync(new byte[] { 0xA7 }, offset, RequestFlags.None, default)).Error;
        Assert.That(new[] { 0L, 511, 60_000, 66_536, 131_071 }.Select(Written), Is.All.EqualTo(NbdError.IoError));
        Assert.That(
            TestData.Failure(async () => await disk.ZeroAsync(440, 72, RequestFlags.FastZero, default)).Error,
            Is.EqualTo(NbdError.IoError));
        if (type == PartitioningType.Gpt)
        {
            Assert.That(Written(disk.Info.Size - 500), Is.EqualTo(NbdError.IoError));
        }
        Assert.That(await TestData.ReadAsync(disk, 0, (int)disk.Info.Size), Is.EqualTo(before));
    }

    [Test]
    public async Task Requests_across_borders_reach_the_members_and_extents_tell_all()
    {
        var first = new ModelPlugin(TestData.Random(4096));
        var second = new ModelPlugin(TestData.Random(4096, 2));
        await using NbdBackend chain = NbdBackend.Compose(Disk(
            PartitioningType.Mbr,
            new PartitioningMember(NbdBackend.Compose(first)) { Alignment = 4096 },
            new PartitioningMember(NbdBackend.Compose(second)) { Alignment = 512 }));
        await using NextContext disk = await chain.OpenAsync();

        // The second one follows the first without a gap.
        Assert.That(disk.Info.Size, Is.EqualTo(3 * 4096));
        await disk.ZeroAsync(4000, 200, RequestFlags.None, default);
        await disk.WriteAsync(new byte[] { 1, 2, 3, 4 }, 8190, RequestFlags.Fua, default);
        Assert.That(first.Data[..104], Is.All.Zero);
        Assert.That((first.Stable[4094], first.Stable[4095], second.Stable[0], second.Stable[1]), Is.EqualTo((1, 2, 3, 4)));
        ExtentList extents = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, default);
        Assert.That(extents[0], Is.EqualTo(new Extent(0, 512, ExtentStatus.Data)));
        Assert.That(extents[1], Is.EqualTo(new Extent(512, 3584, ExtentStatus.Hole | ExtentStatus.Zero)));
        Assert.That(extents.Covered, Is.EqualTo(disk.Info.Size));
        ExtentList depths = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.AllocationDepth, default);
        Assert.That(depths.Select(depth => (ulong)depth.Status).Take(3), Is.EqualTo(new ulong[] { 1, 0, 1 }));
    }

    [Test]
    public async Task The_same_disk_guid_makes_the_same_table_and_otherwise_it_is_random()
    {
        async Task<byte[]> TableAsync(Guid? guid)
        {
            PartitioningMember[] members = [Member(512), Member(512, 2)];
            PartitioningPlugin plugin = guid is { } given
                ? new() { Partitions = members, Type = PartitioningType.Gpt, DiskGuid = given }
                : Disk(PartitioningType.Gpt, members);
            await using NbdBackend chain = NbdBackend.Compose(plugin);
            await using NextContext one = await chain.OpenAsync();
            await using NextContext two = await chain.OpenAsync();
            byte[] table = await TestData.ReadAsync(one, 0, 1280);
            Assert.That(await TestData.ReadAsync(two, 0, 1280), Is.EqualTo(table));
            return table;
        }
        var disk = new Guid("01234567-89ab-cdef-0123-456789abcdef");
        byte[] table = await TableAsync(disk);

        Assert.That(new Guid(table.AsSpan(512 + 56, 16)), Is.EqualTo(disk));
        Assert.That(await TableAsync(disk), Is.EqualTo(table));
        Assert.That(table[1040..1056], Is.Not.EqualTo(table[1168..1184]));
        Assert.That(await TableAsync(null), Is.Not.EqualTo(await TableAsync(null)));
    }

    [Test]
    public async Task What_an_mbr_cannot_describe_gets_a_gpt_or_fails()
    {
        NbdBackend Huge() => NbdBackend.Compose(new MemoryPlugin { Size = 512L << 32 });
        await using NbdBackend automatic = NbdBackend.Compose(Disk(PartitioningType.Auto, new PartitioningMember(Huge())));
        await using NextContext disk = await automatic.OpenAsync();
        Assert.That((await TestData.ReadAsync(disk, 512, 8)).AsSpan().SequenceEqual("EFI PART"u8));
        async Task<string> RefusalAsync(PartitioningPlugin plugin)
        {
            await using NbdBackend chain = NbdBackend.Compose(plugin);
            return TestData.Failure(async () => await chain.OpenAsync()).Message;
        }
        Assert.That(await RefusalAsync(Disk(PartitioningType.Mbr, new PartitioningMember(Huge()))), Does.Contain("use a GPT"));
        Assert.That(await RefusalAsync(Disk(PartitioningType.Auto, Member(512), Member(0))), Does.Contain("member 2 is empty"));
        NbdBackend largest = NbdBackend.Compose(new MemoryPlugin { Size = long.MaxValue });
        Assert.That(await RefusalAsync(Disk(PartitioningType.Gpt, new PartitioningMember(largest))), Does.Contain("2^63-1"));
        var blocks = new ModelPlugin(new byte[8192], ModelPlugin.Everything with { BlockSize = new BlockSize(4096, 4096) });
        var uneven = new PartitioningPlugin
        {
            Partitions = [Member(512), new PartitioningMember(NbdBackend.Compose(blocks)) { Alignment = 512 }],
            SectorSize = 512,
        };
        Assert.That(await RefusalAsync(uneven), Does.Contain("partition 2 would begin at 4608").And.Contain("block size 4096"));
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 512 });
        Assert.Throws<ArgumentException>(() => Disk(PartitioningType.Auto));
        Assert.Throws<ArgumentException>(() => Disk(PartitioningType.Auto, new(chain), new(chain)));
        Assert.Throws<ArgumentOutOfRangeException>(() => Disk((PartitioningType)3, new PartitioningMember(chain)));
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new PartitioningMember(chain) { Alignment = 1000 });
        Assert.Throws<ArgumentOutOfRangeException>(() => _ = new PartitioningMember(chain) { MbrId = 5 });
        Assert.Throws<ArgumentException>(() => _ = new PartitioningMember(chain) { TypeGuid = Guid.Empty });
        Assert.Throws<ArgumentOutOfRangeException>(
            () => _ = new PartitioningPlugin { Partitions = [new(chain)], SectorSize = 1024 });
    }

    [Test]
    public async Task Parameters_apply_to_the_files_after_them()
    {
        using var folder = new ScratchDirectory();
        string a = folder.Write("a", TestData.Random(512)), b = folder.Write("b", TestData.Random(512, 2));
        await using NbdBackend chain = new NbdCatalogue().Compose(
            "partitioning", [],
            [new("alignment", "2048"), new("mbr-id", "0x82"), new("", a), new("alignment", "8k"), new("mbr-id", "default"), new("file", b)]);
        await using NextContext disk = await chain.OpenAsync();

        byte[] boot = await TestData.ReadAsync(disk, 0, 512);
        Assert.That((boot[446 + 4], boot[446 + 8], boot[462 + 4], boot[462 + 8]), Is.EqualTo((0x82, 4, 0x83, 16)));
        Assert.That(
            () => new NbdCatalogue().Compose("partitioning", [], [new("type-guid", "x"), new("file", a)]),
            Throws.ArgumentException.With.Message.Contains("'x' is not a GUID"));
        Assert.That(
            () => new NbdCatalogue().Compose("partitioning", [], [new("partition-type", "bsd"), new("file", a)]), Throws.ArgumentException);
    }

    [Test]
    public async Task Any_partitioned_disk_behaves_like_an_array_of_bytes([Range(1, 20)] int seed)
    {
        var random = new Random(seed);
        int count = random.Next(1, 8);
        PartitioningMember[] members = [.. Enumerable.Range(0, count).Select(
            i => Member(random.Next(1, 30_000), i, 512 << random.Next(6)))];
        var type = (PartitioningType)random.Next(3);
        await using NbdBackend chain = NbdBackend.Compose(Disk(type, members));
        await using NextContext disk = await chain.OpenAsync();
        byte[] model = await TestData.ReadAsync(disk, 0, (int)disk.Info.Size);
        // Where each member is, found by its content.
        bool[] isMember = new bool[model.Length];
        int from = 0;
        foreach (PartitioningMember member in members)
        {
            await using NextContext inside = await member.Chain.OpenAsync();
            byte[] content = await TestData.ReadAsync(inside, 0, (int)inside.Info.Size);
            for (from = (from + 511) / 512 * 512; !model.AsSpan(from).StartsWith(content);)
            {
                from += 512;
            }
            isMember.AsSpan(from, content.Length).Fill(true);
            from += content.Length;
        }
        for (int i = 0; i < 150; i++)
        {
            int offset = random.Next(model.Length), length = random.Next(1, Math.Min(20_000, model.Length - offset) + 1);
            byte[] data = new byte[length];
            bool isZero = random.Next(2) == 0;
            if (!isZero)
            {
                random.NextBytes(data);
                for (int at = 0; at < length; at++)
                {
                    data[at] = isMember[offset + at] || random.Next(20_000) == 0 ? data[at] : model[offset + at];
                }
            }
            bool fits = Enumerable.Range(0, length).All(at => isMember[offset + at] || data[at] == model[offset + at]);
            try
            {
                await (isZero
                    ? disk.ZeroAsync(offset, length, RequestFlags.MayTrim, default)
                    : disk.WriteAsync(data, offset, RequestFlags.None, default));
                Assert.That(fits, $"seed {seed}, operation {i}");
                data.CopyTo(model, offset);
            }
            catch (NbdException e)
            {
                Assert.That((e.Error, fits), Is.EqualTo((NbdError.IoError, false)), $"seed {seed}, operation {i}");
                // How much of it the members took is not said, but the rest must be as it was.
                byte[] now = await TestData.ReadAsync(disk, offset, length);
                for (int at = 0; at < length; at++)
                {
                    Assert.That(now[at] == model[offset + at] || (isMember[offset + at] && now[at] == data[at]), $"seed {seed}");
                }
                now.CopyTo(model, offset);
            }
            offset = random.Next(model.Length);
            length = random.Next(1, Math.Min(20_000, model.Length - offset) + 1);
            byte[] read = await TestData.ReadAsync(disk, offset, length);
            Assert.That(read.AsSpan().SequenceEqual(model.AsSpan(offset, length)), $"seed {seed}, operation {i}");
        }
    }
}
