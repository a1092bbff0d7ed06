using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class NoextentsFilterTests
{
    [Test]
    public async Task All_is_data_and_the_layer_below_is_not_asked()
    {
        var plugin = new ModelPlugin(new byte[8192]);
        await using NbdBackend chain = NbdBackend.Compose(plugin, NoextentsFilter.Entry.Create(new NbdParameters("noextents", [])));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.CanExtents, Is.False);
        ExtentList extents = await disk.ExtentsFullAsync(100, 5000, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[] { new Extent(100, 5000, ExtentStatus.Data) }));
        Assert.That(plugin.TakeCalls(), Is.Empty);
    }

    [Test]
    public async Task Other_meta_contexts_are_not_offered_as_data_would_be_a_false_answer()
    {
        var plugin = new ModelPlugin(
            new byte[8192], ModelPlugin.Everything with { MetaContexts = [ExtentList.BaseAllocation, "qemu:dirty-bitmap:b"] });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new NoextentsFilter());
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.MetaContexts, Is.EqualTo(new[] { ExtentList.BaseAllocation }));
    }
}
