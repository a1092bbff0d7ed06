using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class SwabFilterTests
{
    [Test]
    public async Task The_size_is_made_of_whole_groups_and_so_must_requests_be()
    {
        await using NbdBackend chain = NbdBackend.Compose(new ModelPlugin(new byte[1005]), new SwabFilter { Bits = 32 });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.Size, disk.Info.BlockSize.Minimum), Is.EqualTo((1004, 4)));
        foreach ((long offset, int length) in new[] { (2L, 4), (4L, 3) })
        {
            Assert.That(
                Assert.ThrowsAsync<NbdException>(() => disk.ReadAsync(new byte[length], offset, default).AsTask())!.Error,
                Is.EqualTo(NbdError.InvalidArgument));
            Assert.That(
                Assert.ThrowsAsync<NbdException>(() => disk.ZeroAsync(offset, length, RequestFlags.None, default).AsTask())!.Error,
                Is.EqualTo(NbdError.InvalidArgument));
        }
    }

    [Test]
    public async Task A_limit_of_the_layer_below_is_kept_in_whole_groups()
    {
        var plugin = new ModelPlugin(new byte[65_536], ModelPlugin.Everything with { BlockSize = new BlockSize(1, 512, 12_345) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new SwabFilter { Bits = 64 });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.BlockSize, Is.EqualTo(new BlockSize(8, 512, 12_344)));
    }

    [TestCase(1001, 512)]
    [TestCase(1002, 1002)]
    [TestCase(512, 512)]
    [TestCase(511, 0)]
    public async Task A_block_at_the_end_that_would_lose_half_a_group_is_cut_off(int size, int expected)
    {
        var plugin = new ModelPlugin(new byte[size], ModelPlugin.Everything with { BlockSize = new BlockSize(512, 4096) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new SwabFilter { Bits = 16 });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(expected));
        if (expected > 0)
        {
            await TestData.ReadAsync(disk, 0, expected);
        }
        Assert.That(plugin.Offence, Is.Null);
    }

    [TestCase("7"), TestCase("128"), TestCase("")]
    public void Other_groups_are_refused(string bits)
        => Assert.Throws<ArgumentException>(() => SwabFilter.Entry.Create(new NbdParameters("swab", [new("swab-bits", bits)])));
}
