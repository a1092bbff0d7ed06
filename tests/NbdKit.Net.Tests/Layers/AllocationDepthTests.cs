using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Layers;

/// <summary>qemu:allocation-depth: overlays count the layers below them, disks made of others pass it on.</summary>
public sealed class AllocationDepthTests
{
    private const int Size = 1 << 20;

    [Test]
    public async Task Each_overlay_is_one_layer_and_holes_are_in_none()
    {
        var plugin = new MemoryPlugin { Size = Size };
        await using NbdBackend chain = NbdBackend.Compose(plugin, [new CowFilter(), new NofilterFilter(), new CowFilter()]);
        await using (NbdBackend below = NbdBackend.Compose(plugin))
        {
            await using NextContext disk = await below.OpenAsync();
            await disk.WriteAsync(new byte[65_536], 0, RequestFlags.None, default);
        }
        await using NextContext top = await chain.OpenAsync();
        await top.WriteAsync(new byte[65_536], 131_072, RequestFlags.None, default);
        await top.TrimAsync(262_144, 65_536, RequestFlags.None, default);

        Assert.That(top.Info.MetaContexts, Is.EqualTo(new[] { ExtentList.BaseAllocation, ExtentList.AllocationDepth }));
        ExtentList depth = await top.ExtentsFullAsync(0, Size, ExtentList.AllocationDepth, default);
        Assert.That(
            depth.Select(extent => (extent.Offset, extent.Length, (int)extent.Status)),
            Is.EqualTo(new[]
            {
                (0L, 65_536L, 3), (65_536, 65_536, 0), (131_072, 65_536, 1), (196_608, 65_536, 0), (262_144, 65_536, 1),
                (327_680, Size - 327_680, 0),
            }));
        var first = new ExtentList(0, Size, ExtentList.AllocationDepth, 1);
        await top.ExtentsAsync(0, Size, RequestFlags.RequestOne, first, default);
        Assert.That(first[0].Status, Is.EqualTo((ExtentStatus)3));
    }

    [Test]
    public async Task Disks_made_of_others_have_it_whether_these_do_or_not()
    {
        NbdBackend Plain() => NbdBackend.Compose(new MemoryPlugin { Size = 65_536 });
        NbdBackend Overlaid() => NbdBackend.Compose(new DataPlugin { Data = TestExport.Pattern(65_536) }, [new CowFilter()]);
        INbdPlugin[] plugins =
        [
            new ConcatPlugin { Chains = [Plain(), Overlaid()] },
            new MirrorPlugin { Chains = [Overlaid(), Overlaid()] },
        ];
        int[][] expected = [[0, 2], [2]];
        for (int i = 0; i < plugins.Length; i++)
        {
            await using NbdBackend chain = NbdBackend.Compose(plugins[i]);
            await using NextContext disk = await chain.OpenAsync();

            Assert.That(disk.Info.MetaContexts, Does.Contain(ExtentList.AllocationDepth));
            ExtentList depth = await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.AllocationDepth, default);
            Assert.That(depth.Select(extent => (int)extent.Status), Is.EqualTo(expected[i]), plugins[i].Name);
        }
    }
}
