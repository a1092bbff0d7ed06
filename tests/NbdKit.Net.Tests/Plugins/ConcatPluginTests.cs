using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class ConcatPluginTests
{
    private static ModelPlugin Model(int size, NbdExportInfo? info = null, int seed = 1)
        => new(TestData.Random(size, seed), info);

    private static NbdBackend Concat(params INbdPlugin[] members)
        => NbdBackend.Compose(new ConcatPlugin { Chains = [.. members.Select(member => NbdBackend.Compose(member))] });

    [Test]
    public async Task Members_follow_each_other_and_empty_ones_are_passed_over()
    {
        ModelPlugin a = Model(1000), b = Model(777, seed: 2);
        await using NbdBackend chain = Concat(Model(0), a, Model(0), b, Model(0));
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(disk.Info.Size, Is.EqualTo(1777));
        Assert.That(await TestData.ReadAsync(disk, 0, 1777), Is.EqualTo(a.Data.Concat(b.Data)));
        await disk.WriteAsync(new byte[] { 1, 2, 3 }, 998, RequestFlags.Fua, default);
        Assert.That(a.Stable[998..], Is.EqualTo(new byte[] { 1, 2 }));
        Assert.That(b.Stable[0], Is.EqualTo(3));
        await disk.ZeroAsync(999, 2, RequestFlags.None, default);
        Assert.That((a.Data[999], b.Data[0], b.Data[1]), Is.EqualTo((0, 0, TestData.Random(777, 2)[1])));
    }

    [Test]
    public async Task Extents_are_those_of_the_members_shifted()
    {
        byte[] half = new byte[8192];
        half.AsSpan(0, 4096).Fill(1);
        var none = new ModelPlugin(new byte[4096], ModelPlugin.Everything with { CanExtents = false });
        await using NbdBackend chain = Concat(new ModelPlugin(half), none, new MemoryPlugin { Size = 65_536 });
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, default);

        Assert.That(extents[0], Is.EqualTo(new Extent(0, 4096, ExtentStatus.Data)));
        Assert.That(extents.Where(e => e.Offset is >= 4096 and < 8192).All(e => (e.Status & ExtentStatus.Zero) != 0));
        Assert.That(extents.Single(e => e.Offset == 8192), Is.EqualTo(new Extent(8192, 4096, ExtentStatus.Data)));
        Assert.That(
            extents.Single(e => e.Offset == 12_288),
            Is.EqualTo(new Extent(12_288, 65_536, ExtentStatus.Hole | ExtentStatus.Zero)));
    }

    [Test]
    public async Task The_disk_can_do_what_all_members_can()
    {
        NbdExportInfo weak = ModelPlugin.Everything with
        {
            CanMultiConn = false,
            CanZero = Support.Emulate,
            CanFua = Support.Emulate,
            CanTrim = false,
            CanCache = Support.None,
            BlockSize = new BlockSize(512, 4096, 8192),
        };
        ModelPlugin a = Model(4096, weak), b = Model(4096);
        await using NbdBackend chain = Concat(a, b);
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(disk.Info.CanMultiConn, Is.False);
        Assert.That(disk.Info.CanZero, Is.EqualTo(Support.Native));
        Assert.That(disk.Info.CanFua, Is.EqualTo(Support.Native));
        Assert.That(disk.Info.BlockSize, Is.EqualTo(new BlockSize(512, 4096, 8192)));
        await disk.TrimAsync(0, 8192, RequestFlags.Fua, default);
        await disk.CacheAsync(0, 8192, default);
        await disk.ZeroAsync(0, 8192, RequestFlags.Fua | RequestFlags.MayTrim, default);
        await disk.FlushAsync(default);
        Assert.That((a.Offence, b.Offence), Is.EqualTo(((string?)null, (string?)null)));
        Assert.That(a.Stable.Concat(b.Stable), Is.All.Zero);
    }

    [Test]
    public async Task A_read_only_member_makes_the_disk_read_only()
    {
        await using NbdBackend chain = NbdBackend.Compose(new ConcatPlugin
        {
            Chains = [NbdBackend.Compose(Model(512)), NbdBackend.Compose(Model(512), new ReadonlyFilter())],
        });
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(disk.Info.CanWrite, Is.False);
        Assert.That(disk.Info.CanFlush);
        await disk.FlushAsync(default);
    }

    [Test]
    public async Task A_declined_fast_zero_has_no_effect_and_one_that_began_is_finished([Values] bool firstDeclines)
    {
        var fast = new ModelPlugin(TestData.Random(512));
        var slow = new ModelPlugin(TestData.Random(512)) { DeclinesZero = true };
        await using NbdBackend chain = firstDeclines ? Concat(slow, fast) : Concat(fast, slow);
        await using NextContext disk = await chain.OpenAsync();

        if (firstDeclines)
        {
            Assert.That(
                TestData.Failure(async () => await disk.ZeroAsync(0, 1024, RequestFlags.FastZero, default)).Error,
                Is.EqualTo(NbdError.NotSupported));
            Assert.That(fast.Data, Is.EqualTo(TestData.Random(512)));
        }
        else
        {
            await disk.ZeroAsync(0, 1024, RequestFlags.FastZero, default);
            Assert.That(slow.Data, Is.All.Zero);
        }
    }

    [Test]
    public async Task A_failing_member_fails_the_request_and_its_error_is_told()
    {
        ModelPlugin bad = Model(512);
        bad.Before = _ => throw new NbdException(NbdError.NoSpace, "full");
        await using NbdBackend chain = Concat(Model(512), bad);
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(
            TestData.Failure(async () => await disk.WriteAsync(new byte[8], 508, RequestFlags.None, default)).Error,
            Is.EqualTo(NbdError.NoSpace));
        await disk.WriteAsync(new byte[8], 100, RequestFlags.None, default);
    }

    [Test]
    public async Task Members_that_do_not_fit_together_are_refused()
    {
        await using NbdBackend huge = Concat(new MemoryPlugin { Size = long.MaxValue }, new MemoryPlugin { Size = 1 });
        Assert.That(TestData.Failure(async () => await huge.OpenAsync()).Message, Does.Contain("2^63-1"));
        NbdExportInfo blocks = ModelPlugin.Everything with { BlockSize = new BlockSize(512, 512) };
        await using NbdBackend uneven = Concat(Model(513), Model(512, blocks));
        Assert.That(TestData.Failure(async () => await uneven.OpenAsync()).Message, Does.Contain("block size 512"));
        NbdExportInfo large = ModelPlugin.Everything with { BlockSize = new BlockSize(65_536, 65_536) };
        NbdExportInfo small = ModelPlugin.Everything with { BlockSize = new BlockSize(512, 512, 1024) };
        await using NbdBackend apart = Concat(Model(65_536, large), Model(65_536, small));
        Assert.That(TestData.Failure(async () => await apart.OpenAsync()).Message, Does.Contain("blocksize"));
        NbdBackend twice = NbdBackend.Compose(Model(1));
        Assert.That(() => new ConcatPlugin { Chains = [twice, twice] }, Throws.ArgumentException);
        Assert.That(() => new ConcatPlugin { Chains = [] }, Throws.ArgumentException);
    }

    [Test]
    public async Task The_end_of_the_largest_disk_can_be_reached()
    {
        await using NbdBackend chain = Concat(new MemoryPlugin { Size = long.MaxValue - 10 }, new MemoryPlugin { Size = 10 });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1, 2, 3, 4 }, long.MaxValue - 12, RequestFlags.None, default);

        Assert.That(await TestData.ReadAsync(disk, long.MaxValue - 12, 4), Is.EqualTo(new byte[] { 1, 2, 3, 4 }));
        var extents = new ExtentList(0, long.MaxValue);
        await disk.ExtentsAsync(0, long.MaxValue, RequestFlags.None, extents, default);
        Assert.That(extents.Covered, Is.EqualTo(long.MaxValue));
    }

    [Test]
    public async Task The_catalogue_makes_it_of_files()
    {
        using var folder = new ScratchDirectory();
        File.WriteAllBytes(folder["a"], [1, 2]);
        File.WriteAllBytes(folder["b"], [3]);
        await using NbdBackend chain = new NbdCatalogue().Compose(
            "concat", [], [new("", folder["a"]), new("file", folder["b"])]);
        await using NextContext disk = await chain.OpenAsync();

        Assert.That(await TestData.ReadAsync(disk, 0, 3), Is.EqualTo(new byte[] { 1, 2, 3 }));
    }
}
