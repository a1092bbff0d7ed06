using NbdKit.Plugins;

namespace NbdKit.Tests.Plugins;

public sealed class PatternPluginTests
{
    [Test]
    public async Task Every_offset_and_length_reads_what_the_definition_says()
    {
        await using NbdBackend chain = NbdBackend.Compose(new PatternPlugin { Size = long.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        long[] places = [0, 0x1234_5678_9ab0, long.MaxValue - 64];
        foreach (long place in places)
        {
            for (int shift = 0; shift < 16; shift++)
            {
                for (int length = 1; length <= 40; length++)
                {
                    await Check(disk, place + shift, length);
                }
            }
        }
    }

    [Test]
    public async Task The_last_byte_of_the_largest_disk_can_be_read()
    {
        await using NbdBackend chain = NbdBackend.Compose(new PatternPlugin { Size = long.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        await Check(disk, long.MaxValue - 1, 1);
        await Check(disk, long.MaxValue - 23, 23);
        await Check(disk, long.MaxValue - 100_000, 100_000);
    }

    [Test]
    public async Task It_reads_as_documented()
    {
        await using NbdBackend chain = NbdBackend.Compose(new PatternPlugin { Size = 0x30 });
        await using NextContext disk = await chain.OpenAsync();
        byte[] bytes = new byte[13];
        await disk.ReadAsync(bytes, 0x23, default);
        Assert.That(bytes, Is.EqualTo(new byte[] { 0, 0, 0, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0x28 }));
    }

    [Test]
    public async Task It_is_read_only_and_safe_for_many_connections()
    {
        await using NbdBackend chain = NbdBackend.Compose(new PatternPlugin { Size = 1 << 20 });
        await using NextContext disk = await chain.OpenAsync();
        NbdExportInfo info = disk.Info;
        Assert.That((info.CanWrite, info.CanZero, info.CanTrim), Is.EqualTo((false, Support.None, false)));
        Assert.That((info.CanMultiConn, info.CanCache), Is.EqualTo((true, Support.Native)));
        Assert.That(
            async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default),
            Throws.InvalidOperationException);
    }

    [Test]
    public async Task The_catalogue_makes_it()
    {
        var catalogue = new NbdCatalogue();
        catalogue.Add(PatternPlugin.Entry);
        await using NbdBackend chain = catalogue.Compose("pattern", [], [new("", "1G")]);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(1 << 30));
        Assert.That(
            () => catalogue.Compose("pattern", [], []),
            Throws.ArgumentException.With.Message.Contains("size="));
        Assert.That(() => new PatternPlugin { Size = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private static async Task Check(NextContext disk, long offset, int length)
    {
        byte[] bytes = new byte[length];
        await disk.ReadAsync(bytes, offset, default);
        for (int i = 0; i < length; i++)
        {
            long at = offset + i;
            byte due = (byte)((at & ~7L) >> (8 * (7 - (int)(at & 7))));
            if (bytes[i] != due)
            {
                Assert.Fail($"{length} bytes at {offset}: byte {i} is {bytes[i]}, not {due}");
            }
        }
    }
}
