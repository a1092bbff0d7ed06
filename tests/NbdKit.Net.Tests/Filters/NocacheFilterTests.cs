using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class NocacheFilterTests
{
    [TestCase("none", Support.None)]
    [TestCase("emulate", Support.Emulate)]
    [TestCase("nop", Support.Native)]
    public async Task The_layer_below_is_never_asked_to_prefetch(string mode, Support expected)
    {
        var plugin = new ModelPlugin(new byte[8192]);
        await using NbdBackend chain = NbdBackend.Compose(
            plugin, NocacheFilter.Entry.Create(new NbdParameters("nocache", [new("cachemode", mode)])));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.CanCache, Is.EqualTo(expected));
        plugin.TakeCalls();
        if (expected != Support.None)
        {
            await disk.CacheAsync(100, 5000, default);
        }
        string[] calls = plugin.TakeCalls();
        Assert.That(calls.Length, Is.EqualTo(expected == Support.Emulate ? 1 : 0), string.Join(", ", calls));
        Assert.That(calls.All(call => call.StartsWith("read", StringComparison.Ordinal)));
    }

    [Test]
    public void Other_modes_are_refused()
        => Assert.Throws<ArgumentException>(() => NocacheFilter.Entry.Create(new NbdParameters("nocache", [new("cachemode", "off")])));
}
