using System.Buffers.Binary;
using System.Text;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class InfoPluginTests
{
    [TestCase(InfoMode.ExportName, "héllo", "héllo")]
    [TestCase(InfoMode.ExportName, "", "")]
    [TestCase(InfoMode.Base64ExportName, "aGVsbG8=", "hello")]
    [TestCase(InfoMode.Base64ExportName, "", "")]
    public async Task The_export_name_is_the_disk(InfoMode mode, string name, string content)
    {
        await using NbdBackend chain = NbdBackend.Compose(new InfoPlugin { Mode = mode });
        await using NextContext disk = await chain.OpenAsync(exportName: name);
        Assert.That((disk.Info.CanWrite, disk.Info.CanMultiConn), Is.EqualTo((false, true)));
        byte[] bytes = new byte[disk.Info.Size];
        if (bytes.Length > 0)
        {
            await disk.ReadAsync(bytes, 0, default);
        }
        Assert.That(Encoding.UTF8.GetString(bytes), Is.EqualTo(content));
        if (bytes.Length > 2)
        {
            byte[] part = new byte[1];
            await disk.ReadAsync(part, 2, default);
            Assert.That(part[0], Is.EqualTo(bytes[2]));
        }
    }

    [Test]
    public async Task The_version_is_that_of_the_library()
    {
        await using NbdBackend chain = NbdBackend.Compose(new InfoPlugin { Mode = InfoMode.Version });
        await using NextContext disk = await chain.OpenAsync();
        string text = Encoding.UTF8.GetString(await TestData.ReadAsync(disk, 0, (int)disk.Info.Size));
        Assert.That(text, Does.StartWith(typeof(InfoPlugin).Assembly.GetName().Version!.ToString(3)).And.Not.Contain("+"));
        Assert.That(disk.Info.CanMultiConn, Is.True);
    }

    [Test]
    public async Task A_name_that_is_no_base64_cannot_be_opened()
    {
        await using NbdBackend chain = NbdBackend.Compose(new InfoPlugin { Mode = InfoMode.Base64ExportName });
        NbdException failure = Assert.ThrowsAsync<NbdException>(async () => await chain.OpenAsync(exportName: "a"))!;
        Assert.That((failure.Error, failure.Message), Is.EqualTo((NbdError.InvalidArgument, "the export name is not base64")));
    }

    [Test]
    public async Task Time_goes_on_while_the_disk_is_open()
    {
        var clock = new FakeTimeProvider(DateTimeOffset.UnixEpoch + TimeSpan.FromSeconds(0x1_2345_6789));
        InfoMode[] modes = [InfoMode.Time, InfoMode.Uptime, InfoMode.ConnectionTime];
        NbdBackend[] chains = [.. modes.Select(mode => NbdBackend.Compose(new InfoPlugin { Mode = mode, TimeProvider = clock }))];
        foreach (NbdBackend chain in chains)
        {
            await using NextContext first = await chain.OpenAsync();
        }
        clock.Advance(TimeSpan.FromSeconds(10));
        NextContext[] disks = [.. await Task.WhenAll(chains.Select(chain => chain.OpenAsync().AsTask()))];
        clock.Advance(TimeSpan.FromMicroseconds(1_500_002));
        Assert.That(
            await Task.WhenAll(disks.Select(TimeAsync)),
            Is.EqualTo(new[] { (0x1_2345_6789 + 11, 500_002), (11L, 500_002), (1L, 500_002) }));
        clock.Advance(TimeSpan.FromSeconds(1));
        Assert.That(await TimeAsync(disks[2]), Is.EqualTo((2L, 500_002)));
        Assert.That(disks.Select(disk => disk.Info.CanMultiConn), Is.All.False);
        foreach ((NextContext disk, NbdBackend chain) in disks.Zip(chains))
        {
            await disk.DisposeAsync();
            await chain.DisposeAsync();
        }
    }

    [Test]
    public async Task Nothing_is_told_of_a_client_that_is_not_known()
    {
        await using NbdBackend chain = NbdBackend.Compose(new InfoPlugin { Mode = InfoMode.Address });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.Size, disk.Info.CanMultiConn), Is.EqualTo((0, false)));
    }

    [TestCase("exportname")]
    [TestCase("base64-export-name")]
    [TestCase("address")]
    [TestCase("time")]
    [TestCase("uptime")]
    [TestCase("conntime")]
    [TestCase("version")]
    public void The_catalogue_knows_the_modes(string mode)
        => Assert.That(new NbdCatalogue().Compose("info", [], [new("", mode)]).Name, Is.EqualTo("info"));

    [Test]
    public void The_catalogue_names_a_mode_that_is_none()
    {
        Assert.That(
            () => new NbdCatalogue().Compose("info", [], [new("", "weather")]),
            Throws.ArgumentException.With.Message.Contains("weather"));
        Assert.That(() => new InfoPlugin { Mode = (InfoMode)99 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private static async Task<(long Seconds, int Microseconds)> TimeAsync(NextContext disk)
    {
        byte[] bytes = await TestData.ReadAsync(disk, 0, 12);
        return (BinaryPrimitives.ReadInt64BigEndian(bytes), BinaryPrimitives.ReadInt32BigEndian(bytes.AsSpan(8)));
    }
}
