using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

public class NextContextAlignedExtentsTests
{
    [Test]
    public async Task The_short_block_at_the_end_of_the_largest_disk_is_kept()
    {
        const int Size = 8191;
        await using NbdBackend chain = NbdBackend.Compose(new ModelPlugin(new byte[Size]) { Base = long.MaxValue - Size });
        await using NextContext disk = await chain.OpenAsync();
        long start = long.MaxValue - 4095;
        var extents = new ExtentList(start, long.MaxValue);
        await disk.ExtentsAlignedAsync(start, 4095, 4096, extents, default);
        Assert.That(extents.Covered, Is.EqualTo(long.MaxValue));
        Assert.That(extents.All(e => (e.Status & ExtentStatus.Zero) != 0), Is.True);
    }
}
