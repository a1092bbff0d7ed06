using NbdKit.Plugins;

namespace NbdKit.Tests.Plugins;

public sealed class MemoryPluginTests
{
    private const ExtentStatus Hole = ExtentStatus.Hole | ExtentStatus.Zero;

    [Test]
    public async Task It_does_everything_natively()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 1 << 20 });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info, Is.EqualTo(new NbdExportInfo
        {
            Size = 1 << 20,
            BlockSize = new BlockSize(1, 32_768),
            CanWrite = true,
            CanFlush = true,
            CanTrim = true,
            CanZero = Support.Native,
            CanFastZero = true,
            CanFua = Support.Native,
            CanCache = Support.Native,
            CanMultiConn = true,
            CanExtents = true,
            CanReadSparse = Support.Emulate,
            MetaContexts = disk.Info.MetaContexts,
        }));
        Assert.That(chain.ThreadModel, Is.EqualTo(ThreadModel.Parallel));
    }

    [Test]
    public void A_negative_size_is_refused_where_it_is_set()
        => Assert.That(() => new MemoryPlugin { Size = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());

    [Test]
    public async Task All_connections_see_one_disk()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 100 });
        byte[] found = new byte[3];
        await using (NextContext first = await chain.OpenAsync())
        await using (NextContext second = await chain.OpenAsync("other"))
        {
            await first.WriteAsync(new byte[] { 1, 2, 3 }, 97, RequestFlags.Fua, default);
            await second.ReadAsync(found, 97, default);
            Assert.That(found, Is.EqualTo(new byte[] { 1, 2, 3 }));
        }
        await using NextContext third = await chain.OpenAsync(readOnly: true);
        await third.ReadAsync(found, 96, default);
        Assert.That(found, Is.EqualTo(new byte[] { 0, 1, 2 }));
    }

    [Test]
    public async Task Two_disks_share_nothing()
    {
        await using NbdBackend one = NbdBackend.Compose(new MemoryPlugin { Size = 10 });
        await using NbdBackend other = NbdBackend.Compose(new MemoryPlugin { Size = 10 });
        await using NextContext oneDisk = await one.OpenAsync();
        await using NextContext otherDisk = await other.OpenAsync();
        await oneDisk.WriteAsync(new byte[] { 7 }, 0, RequestFlags.None, default);
        byte[] found = [9];
        await otherDisk.ReadAsync(found, 0, default);
        Assert.That(found[0], Is.Zero);
    }

    [Test]
    public async Task A_disk_of_size_zero_opens_and_has_nothing_to_read()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 0 });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.Zero);
        Assert.That(
            async () => await disk.ReadAsync(new byte[1], 0, default),
            Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public async Task The_largest_disk_is_written_to_its_last_byte()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = long.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1, 2 }, long.MaxValue - 2, RequestFlags.None, default);
        byte[] found = new byte[4];
        await disk.ReadAsync(found, long.MaxValue - 4, default);
        Assert.That(found, Is.EqualTo(new byte[] { 0, 0, 1, 2 }));

        ExtentList extents = await disk.ExtentsFullAsync(0, long.MaxValue, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[]
        {
            new Extent(0, long.MaxValue - 32_767, Hole),
            new Extent(long.MaxValue - 32_767, 32_767, ExtentStatus.Data),
        }));
    }

    [TestCase(RequestFlags.MayTrim, Hole)]
    [TestCase(RequestFlags.MayTrim | RequestFlags.FastZero | RequestFlags.Fua, Hole)]
    [TestCase(RequestFlags.None, ExtentStatus.Data)]
    [TestCase(RequestFlags.FastZero, ExtentStatus.Data)]
    public async Task A_zero_gives_pages_up_only_if_it_may(RequestFlags flags, ExtentStatus after)
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 65_536 });
        await using NextContext disk = await chain.OpenAsync();
        byte[] bytes = new byte[65_536];
        bytes.AsSpan().Fill(0xff);
        await disk.WriteAsync(bytes, 0, RequestFlags.None, default);
        await disk.ZeroAsync(32_768, 32_768, flags, default);
        await disk.ReadAsync(bytes, 0, default);
        Assert.That(bytes.AsSpan(0, 32_768).ContainsAnyExcept((byte)0xff), Is.False);
        Assert.That(bytes.AsSpan(32_768).ContainsAnyExcept((byte)0), Is.False);
        ExtentList extents = await disk.ExtentsFullAsync(32_768, 32_768, ExtentList.BaseAllocation, default);
        Assert.That(extents.Single().Status, Is.EqualTo(after));
    }

    [Test]
    public async Task A_trim_gives_up_whole_pages_and_clears_the_rest()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = 98_304 });
        await using NextContext disk = await chain.OpenAsync();
        byte[] bytes = new byte[98_304];
        bytes.AsSpan().Fill(1);
        await disk.WriteAsync(bytes, 0, RequestFlags.None, default);
        await disk.TrimAsync(32_767, 32_770, RequestFlags.Fua, default);
        await disk.ReadAsync(bytes, 0, default);
        Assert.That(bytes.AsSpan(32_767, 32_770).ContainsAnyExcept((byte)0), Is.False);
        Assert.That((bytes[32_766], bytes[65_537]), Is.EqualTo(((byte)1, (byte)1)));
        var extents = new ExtentList(0, 98_304);
        await disk.ExtentsAsync(0, 98_304, RequestFlags.None, extents, default);
        Assert.That(
            extents.Select(e => (e.Length, e.Status)),
            Is.EqualTo(new[] { (32_768L, ExtentStatus.Data), (32_768L, Hole), (32_768L, ExtentStatus.Data) }));
    }

    [Test]
    public async Task Data_calls_complete_synchronously_and_allocate_nothing_once_pages_exist()
    {
        await using NbdBackend chain = NbdBackend.Compose(new MemoryPlugin { Size = long.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        byte[] bytes = new byte[262_144];
        long allocated = 0;
        bool synchronous = true;
        for (int i = 0; i < 20; i++)
        {
            long before = GC.GetAllocatedBytesForCurrentThread();
            ValueTask write = disk.WriteAsync(bytes, 1L << 50, RequestFlags.Fua, default);
            ValueTask read = disk.ReadAsync(bytes, 1L << 50, default);
            ValueTask flush = disk.FlushAsync(default);
            synchronous &= write.IsCompletedSuccessfully && read.IsCompletedSuccessfully;
            synchronous &= flush.IsCompletedSuccessfully;
            allocated = GC.GetAllocatedBytesForCurrentThread() - before;
            await write;
            await read;
            await flush;
        }
        Assert.That(synchronous, Is.True);
        Assert.That(allocated, Is.Zero, "in the last round");
    }

    [TestCase("size", "1.5G", 1_610_612_736L)]
    [TestCase("", "9223372036854775807", long.MaxValue)]
    [TestCase("size", "0", 0L)]
    public async Task The_catalogue_makes_it(string key, string value, long size)
    {
        var catalogue = new NbdCatalogue();
        catalogue.Add(MemoryPlugin.Entry);
        await using NbdBackend chain = catalogue.Compose("memory", [], [new(key, value)]);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(size));
    }

    [TestCase]
    [TestCase("-1")]
    [TestCase("x")]
    public void The_catalogue_refuses_a_missing_or_wrong_size(params string[] sizes)
    {
        var catalogue = new NbdCatalogue();
        catalogue.Add(MemoryPlugin.Entry);
        KeyValuePair<string, string>[] parameters = [.. sizes.Select(size => KeyValuePair.Create("size", size))];
        Assert.That(
            () => catalogue.Compose("memory", [], parameters),
            Throws.ArgumentException.With.Message.Contains("size="));
        Assert.That(
            () => MemoryPlugin.Entry.Create(new NbdParameters("memory", parameters)),
            Throws.ArgumentException.With.Message.Contains("size="));
    }
}
