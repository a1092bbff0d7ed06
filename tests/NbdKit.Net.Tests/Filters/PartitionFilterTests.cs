using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class PartitionFilterTests
{
    private const int Sector = 512;

    /// <summary>
    /// Two primary partitions and an extended one from sector 100, 100 sectors long, with two logical
    /// ones.
    /// </summary>
    private static byte[] MbrDisk(int sectorSize = Sector)
    {
        byte[] disk = TestData.Random(256 * sectorSize);
        disk.AsSpan(0, 2 * sectorSize).Clear();
        PartitionImage.WriteRecord(disk.AsSpan(0, sectorSize), (0x83, 8, 16), (0, 0, 0), (0x05, 100, 100), (0x07, 24, 1));
        WriteExtended(disk, sectorSize, 100, (0x83, 2, 8), (0x05, 20, 30));
        WriteExtended(disk, sectorSize, 120, (0x82, 1, 29), default);
        return disk;
    }

    private static void WriteExtended(
        byte[] disk, int sectorSize, int sector, (byte, uint, uint) logical, (byte, uint, uint) next)
    {
        Span<byte> record = disk.AsSpan(sector * sectorSize, sectorSize);
        record.Clear();
        PartitionImage.WriteRecord(record, logical, next);
    }

    private static NbdBackend Chain(INbdPlugin plugin, int partition, long? sectorSize = null)
        => NbdBackend.Compose(plugin, new PartitionFilter { Partition = partition, SectorSize = sectorSize });

    [TestCase(1, 8, 16)]
    [TestCase(4, 24, 1)]
    [TestCase(5, 102, 8)]
    [TestCase(6, 121, 29)]
    public async Task Partitions_of_an_MBR_are_found_by_number(int number, int start, int count)
    {
        byte[] image = MbrDisk();
        var plugin = new ModelPlugin(image, ModelPlugin.Everything with { Description = "a disk" });
        await using NbdBackend chain = Chain(plugin, number);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(
            disk.Info,
            Is.EqualTo(plugin.Info with { Size = count * Sector, Description = $"partition {number} of MBR disk: a disk" }));
        Assert.That(
            await TestData.ReadAsync(disk, 0, count * Sector),
            Is.EqualTo(image[(start * Sector)..((start + count) * Sector)]));
    }

    [TestCase(2, "no such partition")]
    [TestCase(3, "extended partition")]
    [TestCase(7, "no such partition")]
    public async Task What_is_not_a_partition_of_the_MBR_fails_the_open(int number, string message)
    {
        await using NbdBackend chain = Chain(new ModelPlugin(MbrDisk()), number);
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.Contain(message).And.Contain($"partition {number}"));
    }

    [Test]
    public async Task A_logical_partition_needs_an_extended_one()
    {
        byte[] image = new byte[64 * Sector];
        PartitionImage.WriteRecord(image, (0x83, 8, 16));
        await using NbdBackend chain = Chain(new ModelPlugin(image), 5);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain("no extended partition"));
    }

    [Test]
    public async Task An_extended_record_without_a_partition_has_no_number()
    {
        byte[] image = MbrDisk();
        WriteExtended(image, Sector, 100, default, (0x05, 20, 30));
        await using NbdBackend chain = Chain(new ModelPlugin(image), 5);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, Sector), Is.EqualTo(image[(121 * Sector)..(122 * Sector)]));
    }

    [TestCase(1)]
    [TestCase(128)]
    public async Task Partitions_of_a_GPT_are_found_by_number(int number)
    {
        byte[] image = TestData.Random(256 * Sector);
        var partitions = new (ulong, ulong)[128];
        partitions[number - 1] = (40, 59);
        PartitionImage.WriteGpt(image, Sector, partitions);
        var plugin = new ModelPlugin(image);
        await using NbdBackend chain = Chain(plugin, number);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(20 * Sector));
        Assert.That(disk.Info.Description, Is.EqualTo($"partition {number} of GPT disk"));
        Assert.That(await TestData.ReadAsync(disk, 0, 20 * Sector), Is.EqualTo(image[(40 * Sector)..(60 * Sector)]));
    }

    [TestCase(2, "no such partition")]
    [TestCase(129, "room for 128")]
    [TestCase(int.MaxValue, "room for 128")]
    public async Task What_is_not_a_partition_of_the_GPT_fails_the_open(int number, string message)
    {
        byte[] image = new byte[256 * Sector];
        PartitionImage.WriteGpt(image, Sector, [(40, 59)]);
        await using NbdBackend chain = Chain(new ModelPlugin(image), number);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain(message));
    }

    [TestCase(4096L, 0)]
    [TestCase(null, 4096)]
    public async Task Sectors_of_4096_bytes_are_taken_if_asked_for_or_if_the_layer_has_them(long? sectorSize, int minimum)
    {
        BlockSize blocks = minimum == 0 ? default : new BlockSize(minimum, minimum);
        byte[] gpt = TestData.Random(64 * 4096);
        PartitionImage.WriteGpt(gpt, 4096, [(8, 9)]);
        await using NbdBackend chain = Chain(new ModelPlugin(gpt, ModelPlugin.Everything with { BlockSize = blocks }), 1, sectorSize);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, 8192), Is.EqualTo(gpt[(8 * 4096)..(10 * 4096)]));

        byte[] mbr = MbrDisk(4096);
        await using NbdBackend other = Chain(new ModelPlugin(mbr, ModelPlugin.Everything with { BlockSize = blocks }), 6, sectorSize);
        await using NextContext logical = await other.OpenAsync();
        Assert.That(logical.Info.Size, Is.EqualTo(29 * 4096));
    }

    [Test]
    public async Task Small_sectors_can_be_read_from_a_layer_with_large_blocks()
    {
        byte[] image = TestData.Random((256 * Sector) + 4096 + 100);
        PartitionImage.WriteGpt(image.AsSpan(0, 264 * Sector), Sector, [(40, 63)]);
        var plugin = new ModelPlugin(image, ModelPlugin.Everything with { BlockSize = new BlockSize(4096, 4096, 4096) });
        await using NbdBackend chain = Chain(plugin, 1, Sector);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 0, 4096), Is.EqualTo(image[(40 * Sector)..(48 * Sector)]));
        Assert.That(plugin.Offence, Is.Null);
    }

    [Test]
    public async Task A_partition_that_begins_inside_a_block_fails_the_open()
    {
        var plugin = new ModelPlugin(MbrDisk(), ModelPlugin.Everything with { BlockSize = new BlockSize(4096, 4096) });
        await using NbdBackend chain = Chain(plugin, 5, Sector);
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain("blocksize filter"));
    }

    [Test]
    public async Task Every_request_is_moved_with_its_flags()
    {
        var plugin = new ModelPlugin(MbrDisk());
        await using NbdBackend chain = Chain(plugin, 1);
        await using NextContext disk = await chain.OpenAsync();
        plugin.TakeCalls();
        await disk.WriteAsync(new byte[] { 1, 2, 3 }, 4, RequestFlags.Fua, default);
        await disk.TrimAsync(10, 20, RequestFlags.Fua, default);
        await disk.ZeroAsync(30, 40, RequestFlags.MayTrim | RequestFlags.FastZero, default);
        await disk.CacheAsync(50, 60, default);
        var extents = new ExtentList(0, 8192);
        await disk.ExtentsAsync(0, 8192, RequestFlags.RequestOne, extents, default);
        await disk.FlushAsync(default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "write 4100+3 Fua", "trim 4106+20 Fua", "zero 4126+40 MayTrim, FastZero", "cache 4146+60",
            "extents 4096+8192 RequestOne", "flush",
        }));
        Assert.That((extents[0].Offset, extents.Covered <= 8192), Is.EqualTo((0, true)));
    }

    [Test]
    public async Task The_table_is_read_each_time_an_export_is_opened()
    {
        var plugin = new ModelPlugin(MbrDisk());
        await using NbdBackend chain = Chain(plugin, 1);
        await using (NextContext first = await chain.OpenAsync("one"))
        {
            Assert.That(first.Info.Size, Is.EqualTo(16 * Sector));
        }
        PartitionImage.WriteRecord(plugin.Data, (0x83, 8, 32));
        await using NextContext second = await chain.OpenAsync("two");
        Assert.That(second.Info.Size, Is.EqualTo(32 * Sector));
    }

    [Test]
    public async Task A_description_that_would_be_too_long_gives_way()
    {
        var plugin = new ModelPlugin(MbrDisk(), ModelPlugin.Everything with { Description = new string('x', 4090) });
        await using NbdBackend chain = Chain(plugin, 1);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Description, Is.EqualTo("partition 1 of MBR disk"));
    }

    [Test]
    public void Settings_are_checked_where_they_are_set()
    {
        Assert.That(() => new PartitionFilter { Partition = 0 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new PartitionFilter { Partition = 1, SectorSize = 1024 }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void The_entry_reads_its_parameters()
    {
        var filter = (PartitionFilter)PartitionFilter.Entry.Create(
            new NbdParameters("partition", [new("partition", "7"), new("partition-sectorsize", "4K")]));
        Assert.That((filter.Partition, filter.SectorSize), Is.EqualTo((7, (long?)4096)));
        Assert.That(
            () => PartitionFilter.Entry.Create(new NbdParameters("partition", [new("partition", "0")])),
            Throws.InstanceOf<ArgumentException>().With.Message.Contains("Partition"));
        Assert.That(
            () => PartitionFilter.Entry.Create(new NbdParameters("partition", [])), Throws.InstanceOf<ArgumentException>());
    }
}
