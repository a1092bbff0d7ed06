using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public class StripePluginTests
{
    private static NbdBackend Stripe(long size, params INbdPlugin[] members)
        => NbdBackend.Compose(new StripePlugin
        {
            Chains = [.. members.Select(member => NbdBackend.Compose(member))],
            StripeSize = size,
        });

    [Test]
    public async Task Stripes_go_round_the_members()
    {
        var members = Enumerable.Range(0, 3).Select(_ => new ModelPlugin(new byte[1536 + 100])).ToArray();
        await using NbdBackend chain = Stripe(512, members);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(9 * 512));
        byte[] all = [.. Enumerable.Range(0, 9).SelectMany(i => Enumerable.Repeat((byte)(i + 1), 512))];
        await disk.WriteAsync(all, 0, RequestFlags.None, default);

        for (int i = 0; i < 9; i++)
        {
            Assert.That(members[i % 3].Data.AsSpan(i / 3 * 512, 512).ContainsAnyExcept((byte)(i + 1)), Is.False, $"stripe {i}");
        }
        Assert.That(await TestData.ReadAsync(disk, 0, all.Length), Is.EqualTo(all));
    }

    [Test]
    public async Task A_long_zero_is_one_call_for_each_member()
    {
        var members = Enumerable.Range(0, 2).Select(_ => new ModelPlugin(TestData.Random(8192))).ToArray();
        await using NbdBackend chain = Stripe(512, members);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(100, 10_000, RequestFlags.MayTrim, default);
        await disk.FlushAsync(default);

        Assert.That(members[0].TakeCalls(), Is.EqualTo(new[] { "zero 100+5020 MayTrim", "flush" }));
        Assert.That(members[1].TakeCalls(), Is.EqualTo(new[] { "zero 0+4980 MayTrim", "flush" }));
    }

    [Test]
    public async Task Extents_are_mapped_from_the_members()
    {
        byte[] odd = new byte[4096];
        odd.AsSpan().Fill(1);
        await using NbdBackend chain = Stripe(1024, new MemoryPlugin { Size = 4096 }, new ModelPlugin(odd));
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, 8192, ExtentList.BaseAllocation, default);

        Assert.That(
            extents,
            Is.EqualTo(Enumerable.Range(0, 8).Select(i => new Extent(
                i * 1024, 1024, i % 2 == 0 ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data))));
        var one = new ExtentList(1500, 8192);
        await disk.ExtentsAsync(1500, 6000, RequestFlags.RequestOne, one, default);
        Assert.That(one[0], Is.EqualTo(new Extent(1500, 548, ExtentStatus.Data)));
    }

    [Test]
    public async Task Extents_of_a_huge_disk_take_bounded_work_and_make_progress()
    {
        await using NbdBackend chain = Stripe(
            512, new MemoryPlugin { Size = 1L << 61 }, new MemoryPlugin { Size = 1L << 61 });
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(0, disk.Info.Size);
        await disk.ExtentsAsync(0, disk.Info.Size, RequestFlags.None, extents, default);

        Assert.That(disk.Info.Size, Is.EqualTo(1L << 62));
        Assert.That(extents.Covered, Is.GreaterThanOrEqualTo(32 << 20));
        await disk.ZeroAsync(0, disk.Info.Size, RequestFlags.MayTrim, default);
    }

    [Test]
    public async Task Members_work_at_once()
    {
        var gate = new Gate();
        var members = Enumerable.Range(0, 2).Select(_ => new ModelPlugin(new byte[4096])
        {
            Before = _ => gate.PassAsync().AsTask(),
        }).ToArray();
        await using NbdBackend chain = Stripe(512, members);
        await using NextContext disk = await chain.OpenAsync();
        Task reading = disk.ReadAsync(new byte[1024], 0, default).AsTask();
        await gate.ArrivedAsync(2);
        gate.Open();
        await reading.Soon();
    }

    [Test]
    public async Task Sizes_that_do_not_fit_are_refused()
    {
        Assert.That(() => Stripe(0, new NullPlugin()), Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => Stripe(513, new NullPlugin()), Throws.InstanceOf<ArgumentOutOfRangeException>());
        NbdExportInfo blocks = ModelPlugin.Everything with { BlockSize = new BlockSize(4096, 4096) };
        await using NbdBackend cut = Stripe(512, new ModelPlugin(new byte[8192], blocks));
        Assert.That(TestData.Failure(async () => await cut.OpenAsync()).Message, Does.Contain("4096"));
        await using NbdBackend huge = Stripe(
            512, new MemoryPlugin { Size = long.MaxValue }, new MemoryPlugin { Size = long.MaxValue });
        Assert.That(TestData.Failure(async () => await huge.OpenAsync()).Message, Does.Contain("2^63-1"));
        await using NbdBackend empty = Stripe(512, new MemoryPlugin { Size = 511 });
        await using NextContext disk = await empty.OpenAsync();
        Assert.That(disk.Info.Size, Is.Zero);
    }

    [Test]
    public async Task The_catalogue_makes_it_of_files()
    {
        using var folder = new ScratchDirectory();
        string a = folder.WriteHole("a", 1024);
        string b = folder.WriteHole("b", 1024);
        await using NbdBackend chain = new NbdCatalogue().Compose(
            "stripe", [], [new("file", a), new("file", b), new("stripe", "512")]);
        await using (NextContext disk = await chain.OpenAsync())
        {
            await disk.WriteAsync(new byte[] { 1, 2 }, 511, RequestFlags.None, default);
        }
        Assert.That((File.ReadAllBytes(a)[511], File.ReadAllBytes(b)[0]), Is.EqualTo((1, 2)));
    }
}
