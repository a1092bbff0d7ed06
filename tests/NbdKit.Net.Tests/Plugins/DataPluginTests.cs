using System.Text;
using NbdKit.Plugins;

namespace NbdKit.Tests.Plugins;

public sealed class DataPluginTests
{
    [TestCase(null, "hello")]
    [TestCase(5L, "hello")]
    [TestCase(2L, "he")]
    [TestCase(8L, "hello\0\0\0")]
    public async Task The_disk_begins_with_the_data_and_is_as_long_as_it_is_told(long? size, string content)
    {
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Data = "hello"u8.ToArray(), Size = size });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(content.Length));
        Assert.That(await TextAsync(disk), Is.EqualTo(content));
    }

    [TestCase(null)]
    [TestCase(0L)]
    public async Task It_may_be_empty(long? size)
    {
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Data = default, Size = size });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.Zero);
    }

    [Test]
    public async Task It_may_be_as_large_as_any_disk_and_takes_space_for_the_data_alone()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new DataPlugin { Data = new byte[40_000], Size = long.MaxValue });
        await using NextContext disk = await chain.OpenAsync();
        ExtentList extents = await disk.ExtentsFullAsync(0, long.MaxValue, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[]
        {
            new Extent(0, 65_536, ExtentStatus.Data),
            new Extent(65_536, long.MaxValue - 65_536, ExtentStatus.Hole | ExtentStatus.Zero),
        }));
    }

    [Test]
    public async Task Connections_share_what_is_written_and_the_data_given_stays_as_it_was()
    {
        byte[] data = "hello"u8.ToArray();
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Data = data });
        await using NextContext first = await chain.OpenAsync();
        await using NextContext second = await chain.OpenAsync();
        await first.WriteAsync("J"u8.ToArray(), 0, RequestFlags.Fua, default);
        Assert.That(await TextAsync(second), Is.EqualTo("Jello"));
        Assert.That(data, Is.EqualTo("hello"u8.ToArray()));
        Assert.That(
            (second.Info.CanMultiConn, second.Info.CanTrim, second.Info.CanZero),
            Is.EqualTo((true, true, Support.Native)));
    }

    [TestCase("raw", "hello", "hello")]
    [TestCase("raw", "", "")]
    [TestCase("raw", "\u00e9", "\u00e9")]
    [TestCase("base64", "aGVsbG8=", "hello")]
    [TestCase("base64", "aGVs\nbG8=\n", "hello")]
    public async Task The_catalogue_makes_it(string key, string value, string content)
    {
        await using NbdBackend chain = Compose((key, value));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(Encoding.UTF8.GetByteCount(content)));
        Assert.That(disk.Info.Size == 0 ? "" : await TextAsync(disk), Is.EqualTo(content));
    }

    [Test]
    public async Task The_catalogue_takes_a_size()
    {
        await using NbdBackend chain = Compose(("size", "1M"), ("base64", "MTIz"));
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(1 << 20));
        Assert.That(await TextAsync(disk), Does.StartWith("123\0"));
    }

    [Test]
    public void The_catalogue_wants_exactly_one_source_of_data()
    {
        Assert.That(() => Compose(), Throws.ArgumentException.With.Message.Contains("exactly one"));
        Assert.That(() => Compose(("size", "5")), Throws.ArgumentException.With.Message.Contains("exactly one"));
        Assert.That(
            () => Compose(("raw", "a"), ("base64", "aGVs")),
            Throws.ArgumentException.With.Message.Contains("exactly one"));
        Assert.That(() => Compose(("raw", "a"), ("raw", "b")), Throws.ArgumentException);
        Assert.That(() => Compose(("raw", "a"), ("data", "1")), Throws.ArgumentException.With.Message.Contains("exactly one"));
        Assert.That(() => Compose(("raw", "a"), ("x", "1")), Throws.ArgumentException.With.Message.Contains("x= is a variable"));
        Assert.That(() => Compose(("data", "1"), ("x", "1"), ("x", "2")), Throws.ArgumentException.With.Message.Contains("more than once"));
        Assert.That(() => Compose(("data", "1"), ("allocator", "zstd")), Throws.ArgumentException.With.Message.Contains("zstd"));
    }

    [TestCase("aGVsbG8")]
    [TestCase("?")]
    public void The_catalogue_refuses_what_is_not_base64(string value)
        => Assert.That(() => Compose(("base64", value)), Throws.ArgumentException.With.Message.Contains("base64="));

    [Test]
    public void A_negative_size_is_refused_where_it_is_set()
        => Assert.That(
            () => new DataPlugin { Data = default, Size = -1 }, Throws.InstanceOf<ArgumentOutOfRangeException>());

    private static NbdBackend Compose(params (string Key, string Value)[] parameters)
    {
        var catalogue = new NbdCatalogue();
        catalogue.Add(DataPlugin.Entry);
        return catalogue.Compose("data", [], parameters.Select(p => KeyValuePair.Create(p.Key, p.Value)));
    }

    private static async Task<string> TextAsync(NextContext disk)
    {
        byte[] bytes = new byte[disk.Info.Size];
        await disk.ReadAsync(bytes, 0, default);
        return Encoding.UTF8.GetString(bytes);
    }
}
