using System.Buffers.Binary;
using NbdKit.Filters;
using NbdKit.Filters.Partition;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class PartitionFilterHostileTests
{
    private const int Sector = 512;
    private const int Last = 255;

    private static byte[] GptDisk()
    {
        byte[] disk = new byte[(Last + 1) * Sector];
        PartitionImage.WriteGpt(disk, Sector, [(40, 59)]);
        return disk;
    }

    private static async Task<long> SizeAsync(byte[] image, int partition = 1)
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new ModelPlugin(image), new PartitionFilter { Partition = partition });
        await using NextContext disk = await chain.OpenAsync();
        return disk.Info.Size;
    }

    private static string Refusal(byte[] image, int partition = 1)
    {
        NbdException e = TestData.Failure(() => SizeAsync(image, partition));
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        return e.Message;
    }

    [TestCase(0)]
    [TestCase(511)]
    [TestCase(1023)]
    public void A_disk_of_less_than_two_sectors_has_no_table(int size)
        => Assert.That(Refusal(new byte[size]), Does.Contain("too small"));

    [Test]
    public void A_disk_without_a_table_is_refused()
        => Assert.That(Refusal(new byte[10 * Sector]), Does.Contain("no MBR or GPT"));

    [TestCase(512, TestName = "The backup is used if the signature is gone")]
    [TestCase(512 + 20, TestName = "The backup is used if the header is damaged")]
    [TestCase(1024 + 33, TestName = "The backup is used if an entry is damaged")]
    [TestCase(1024 + (127 * 128), TestName = "The backup is used if the last entry is damaged")]
    public async Task The_backup_is_used(int damaged)
    {
        byte[] image = GptDisk();
        image[damaged] ^= 0x10;
        Assert.That(await SizeAsync(image), Is.EqualTo(20 * Sector));
        image[(Last * Sector) + 20] ^= 1;
        Assert.That(Refusal(image), Does.Contain("and its backup are damaged").And.Contain("sector 255"));
    }

    [Test]
    public async Task The_backup_is_found_where_the_first_header_says_it_is_on_a_disk_that_has_grown()
    {
        byte[] image = [.. GptDisk(), .. new byte[100 * Sector]];
        Assert.That(await SizeAsync(image), Is.EqualTo(20 * Sector));
        image[1024 + 40]++;
        Assert.That(await SizeAsync(image), Is.EqualTo(20 * Sector), "only the entries at the start are damaged");
    }

    [Test]
    public async Task What_is_left_of_a_GPT_does_not_hide_a_new_MBR()
    {
        byte[] image = GptDisk();
        image[512 + 20] ^= 1;
        image[(Last * Sector) + 20] ^= 1;
        image.AsSpan(0, Sector).Clear();
        PartitionImage.WriteRecord(image, (0x83, 8, 16));
        Assert.That(await SizeAsync(image), Is.EqualTo(16 * Sector));
    }

    [Test]
    public void A_copy_of_the_header_in_another_sector_is_not_believed()
    {
        byte[] image = GptDisk();
        image.AsSpan(Sector, Sector).CopyTo(image.AsSpan(Last * Sector));
        image[512 + 20] ^= 1;
        Assert.That(Refusal(image), Does.Contain("belongs to another sector in sector 255"));
    }

    private static readonly object[] FalseHeaders =
    [
        new object[] { 2L, uint.MaxValue, 128L, 92u, "4294967295 entries" },
        new object[] { 2L, 32_769L, 128L, 92u, "32769 entries" },
        new object[] { 2L, 0L, 128L, 92u, "0 entries" },
        new object[] { 2L, 128L, 0L, 92u, "entries of 0 bytes" },
        new object[] { 2L, 128L, 64L, 92u, "entries of 64 bytes" },
        new object[] { 2L, 128L, 192L, 92u, "entries of 192 bytes" },
        new object[] { 2L, 128L, 1L << 31, 92u, "entries of 2147483648 bytes" },
        new object[] { 2L, 32_768L, 128L, 92u, "outside the disk" },
        new object[] { 0L, 128L, 128L, 92u, "outside the disk" },
        new object[] { 250L, 128L, 128L, 92u, "outside the disk" },
        new object[] { 256L, 1L, 128L, 92u, "outside the disk" },
        new object[] { long.MaxValue, 128L, 128L, 92u, "outside the disk" },
        new object[] { -1L, 128L, 128L, 92u, "outside the disk" },
        new object[] { 2L, 128L, 128L, 91u, "a header of 91 bytes" },
        new object[] { 2L, 128L, 128L, 513u, "a header of 513 bytes" },
        new object[] { 2L, 128L, 128L, uint.MaxValue, "a header of 4294967295 bytes" },
    ];

    [TestCaseSource(nameof(FalseHeaders))]
    public void A_header_that_cannot_be_true_is_refused_whatever_its_checksum(
        long array, long count, long entrySize, uint headerSize, string message)
    {
        byte[] image = GptDisk();
        PartitionImage.WriteHeader(image, Sector, 1, Last, array, count, entrySize, 0, headerSize);
        PartitionImage.WriteHeader(image, Sector, Last, 1, array, count, entrySize, 0, headerSize);
        Assert.That(Refusal(image), Does.Contain(message));
    }

    [TestCase(40UL, 39UL)]
    [TestCase(40UL, 256UL)]
    [TestCase(256UL, 256UL)]
    [TestCase(40UL, ulong.MaxValue)]
    [TestCase(0UL, ulong.MaxValue)]
    [TestCase(ulong.MaxValue, ulong.MaxValue)]
    [TestCase(1UL << 55, 1UL << 55)]
    [TestCase((1UL << 63) + 40, (1UL << 63) + 59)]
    public void A_GPT_partition_outside_the_disk_is_refused(ulong first, ulong last)
    {
        byte[] image = new byte[(Last + 1) * Sector];
        PartitionImage.WriteGpt(image, Sector, [(first, last)]);
        Assert.That(Refusal(image), Does.Contain("not inside"));
    }

    [Test]
    public async Task Entries_may_be_larger_than_a_sector()
    {
        byte[] image = new byte[(Last + 1) * Sector];
        PartitionImage.WriteGpt(image, Sector, [(40, 59), (60, 60)], count: 8, entrySize: 1024);
        Assert.That(await SizeAsync(image, 2), Is.EqualTo(Sector));
    }

    [TestCase(8u, 249u)]
    [TestCase(256u, 1u)]
    [TestCase(uint.MaxValue, uint.MaxValue)]
    public void An_MBR_partition_outside_the_disk_is_refused(uint start, uint count)
    {
        byte[] image = new byte[256 * Sector];
        PartitionImage.WriteRecord(image, (0x83, start, count));
        Assert.That(Refusal(image), Does.Contain("not inside"));
    }

    /// <summary>A disk with an extended partition of 100 sectors from sector 100, and one record in it.</summary>
    private static byte[] Extended((byte, uint, uint) logical, (byte, uint, uint) next)
    {
        byte[] image = new byte[256 * Sector];
        PartitionImage.WriteRecord(image, (0x0F, 100, 100));
        PartitionImage.WriteRecord(image.AsSpan(100 * Sector), logical, next);
        return image;
    }

    [TestCase(0u, TestName = "A chain that links to itself is refused")]
    [TestCase(uint.MaxValue, TestName = "A chain that wraps around is refused")]
    [TestCase(100u, TestName = "A chain that leaves the extended partition is refused")]
    [TestCase(50u, TestName = "A chain that leads to a sector without a record is refused")]
    public void A_chain_that_leads_nowhere_is_refused(uint next)
        => Assert.That(Refusal(Extended((0x83, 1, 10), (0x05, next, 10)), 6), Does.Contain("extended boot record"));

    [Test]
    public void A_chain_that_goes_back_is_refused()
    {
        byte[] image = Extended((0x83, 1, 10), (0x05, 50, 10));
        PartitionImage.WriteRecord(image.AsSpan(150 * Sector), (0x83, 1, 10), (0x05, 20, 10));
        Assert.That(Refusal(image, 7), Does.Contain("does not follow it"));
    }

    [Test]
    public void A_chain_without_an_end_is_given_up()
    {
        const uint Records = 2000;
        byte[] image = new byte[(Records + 100) * Sector];
        PartitionImage.WriteRecord(image, (0x05, 10, Records));
        for (uint i = 0; i < Records; i++)
        {
            PartitionImage.WriteRecord(image.AsSpan((int)(10 + i) * Sector), default, (0x05, i + 1, 1));
        }
        Assert.That(Refusal(image, 5), Does.Contain("longer than"));
    }

    [TestCase(0u, 10u)]
    [TestCase(1u, 100u)]
    [TestCase(100u, 1u)]
    [TestCase(uint.MaxValue, 1u)]
    [TestCase(1u, uint.MaxValue)]
    public void A_logical_partition_outside_the_extended_one_is_refused(uint start, uint count)
        => Assert.That(Refusal(Extended((0x83, start, count), default), 5), Does.Contain("not inside the extended partition"));

    [Test]
    public void An_extended_partition_outside_the_disk_is_refused()
    {
        byte[] image = new byte[256 * Sector];
        PartitionImage.WriteRecord(image, (0x05, 256, 100));
        Assert.That(Refusal(image, 5), Does.Contain("outside"));
        PartitionImage.WriteRecord(image, (0x05, 0, 100));
        Assert.That(Refusal(image, 5), Does.Contain("outside"), "the record of the disk itself is not in a chain");
    }

    [Test]
    public void An_error_of_the_layer_below_is_passed_on()
    {
        var plugin = new ModelPlugin(GptDisk()) { Before = _ => throw new NbdException(NbdError.IoError, "bad sector") };
        NbdBackend chain = NbdBackend.Compose(plugin, new PartitionFilter { Partition = 1 });
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Error, Is.EqualTo(NbdError.IoError));
    }

    [Test]
    public async Task Damaged_tables_never_do_worse_than_fail_the_open([Values(1, 2, 3, 4)] int seed)
    {
        var random = new Random(seed);
        for (int round = 0; round < 150; round++)
        {
            byte[] image = random.Next(2) == 0 ? GptDisk() : Extended((0x83, 1, 10), (0x05, 20, 30));
            for (int i = random.Next(1, 40); i > 0; i--)
            {
                int sector = random.Next(5) switch { 0 => 0, 1 => 1, 2 => 2, 3 => 100, _ => Last };
                int at = (sector * Sector) + random.Next(sector is 0 or 100 ? 446 : 0, 512);
                image[at] = random.Next(3) switch { 0 => 0, 1 => 0xFF, _ => (byte)random.Next(256) };
            }
            // Half of the headers get a right checksum again, so that what they say is looked at.
            if (random.Next(2) == 0)
            {
                BinaryPrimitives.WriteUInt32LittleEndian(image.AsSpan(Sector + 16), 0);
                BinaryPrimitives.WriteUInt32LittleEndian(
                    image.AsSpan(Sector + 16), PartitionImage.Crc32(image.AsSpan(Sector, 92)));
            }
            try
            {
                Assert.That(await SizeAsync(image, random.Next(1, 9)), Is.InRange(1, image.Length), $"seed {seed}, round {round}");
            }
            catch (NbdException e)
            {
                Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument), $"seed {seed}, round {round}: {e.Message}");
            }
        }
    }

    [Test]
    public void The_checksum_is_that_of_the_standard()
    {
        byte[] check = [.. "123456789"u8];
        Assert.That(Crc32.End(Crc32.Append(Crc32.Start, check)), Is.EqualTo(0xCBF43926));
        Assert.That(
            Crc32.End(Crc32.Append(Crc32.Append(Crc32.Start, check.AsSpan(0, 4)), check.AsSpan(4))), Is.EqualTo(0xCBF43926));
    }
}
