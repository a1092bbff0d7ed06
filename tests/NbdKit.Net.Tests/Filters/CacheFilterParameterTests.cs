using NbdKit.Filters;
using NbdKit.Plugins;

namespace NbdKit.Tests.Filters;

public class CacheFilterParameterTests
{
    [Test]
    public void Parameters_set_the_properties()
    {
        CacheFilter filter = Create(
            ("cache", "unsafe"), ("cache-min-block-size", "4K"), ("cache-max-size", "1G"), ("cache-high-threshold", "50"),
            ("cache-low-threshold", "20"), ("cache-on-read", "/tmp/flag"), ("cache-store", "memory"), ("cache-directory", "/tmp"));
        Assert.That((filter.Mode, filter.MinBlockSize, filter.MaxSize), Is.EqualTo((CacheMode.Unsafe, 4096, 1L << 30)));
        Assert.That((filter.HighThreshold, filter.LowThreshold, filter.Store), Is.EqualTo((50, 20, CacheStore.Memory)));
        Assert.That((filter.OnRead, filter.OnReadFile, filter.Directory), Is.EqualTo((false, "/tmp/flag", "/tmp")));
        CacheFilter defaults = Create();
        Assert.That((defaults.Mode, defaults.MinBlockSize, defaults.MaxSize), Is.EqualTo((CacheMode.WriteBack, 65_536, (long?)null)));
        Assert.That((defaults.HighThreshold, defaults.LowThreshold, defaults.Store), Is.EqualTo((95, 80, CacheStore.File)));
        Assert.That(Create(("cache", "writethrough"), ("cache-on-read", "true")), Has.Property("OnRead").True.And.Property("Mode").EqualTo(CacheMode.WriteThrough));
    }

    [Test]
    public void Bad_values_are_refused_where_they_are_set()
    {
        Assert.That(() => new CacheFilter { MinBlockSize = 2048 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CacheFilter { MinBlockSize = 5000 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CacheFilter { MaxSize = 4095 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CacheFilter { HighThreshold = 101 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CacheFilter { LowThreshold = 0 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CacheFilter { Mode = (CacheMode)7 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CacheFilter { Store = (CacheStore)7 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new CacheFilter { Directory = "" }, Throws.ArgumentException);
        Assert.That(() => Create(("cache", "writearound")), Throws.ArgumentException);
        Assert.That(() => Create(("cache-on-read", "relative/path")), Throws.ArgumentException);
        Assert.That(() => Create(("cache-low-threshold", "95")), Throws.ArgumentException);
    }

    [Test]
    public void A_chain_that_cannot_work_does_not_start()
    {
        NbdBackend chain = NbdBackend.Compose(new NullPlugin(), new CacheFilter { Directory = "/nonexistent/cache" });
        Assert.That(async () => await chain.StartAsync(), Throws.TypeOf<DirectoryNotFoundException>());
        NbdBackend other = NbdBackend.Compose(new NullPlugin(), new CacheFilter { HighThreshold = 50, LowThreshold = 50 });
        Assert.That(async () => await other.StartAsync(), Throws.ArgumentException);
    }

    [Test]
    public async Task The_catalogue_has_it()
    {
        await using NbdBackend chain = new NbdCatalogue().Compose(
            "memory", ["cache"], [new("size", "1M"), new("cache", "writethrough"), new("cache-store", "memory")]);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.BlockSize.Preferred, Is.EqualTo(65_536));
    }

    private static CacheFilter Create(params (string Name, string Value)[] parameters)
        => (CacheFilter)CacheFilter.Entry.Create(
            new NbdParameters("cache", parameters.Select(p => KeyValuePair.Create(p.Name, p.Value))));
}
