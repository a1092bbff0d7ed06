using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class ReadonlyFilterTests
{
    private string _file = "";

    [SetUp]
    public void SetUp() => _file = Path.Combine(Path.GetTempPath(), "nbdkit-net-readonly-" + Guid.NewGuid().ToString("N"));

    [TearDown]
    public void TearDown()
    {
        if (Directory.Exists(_file))
        {
            Directory.Delete(_file);
        }
        File.Delete(_file);
    }

    [Test]
    public async Task For_good_the_layer_below_is_opened_read_only()
    {
        var plugin = new ModelPlugin(new byte[4096]);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ReadonlyFilter());
        await using NextContext disk = await chain.OpenAsync("some");
        Assert.That(plugin.Opens, Is.EqualTo(new[] { ("some", true) }));
        Assert.That(disk.Info.CanWrite, Is.False);
        Assert.That((disk.Info.CanTrim, disk.Info.CanZero, disk.Info.CanFua), Is.EqualTo((false, Support.None, Support.None)));
        Assert.That(
            async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default), Throws.InvalidOperationException);
        await disk.FlushAsync(default);
        Assert.That(await TestData.ReadAsync(disk, 0, 1), Is.EqualTo(new byte[1]));
    }

    [Test]
    public async Task Writes_are_refused_while_the_file_exists_and_only_then()
    {
        var plugin = new ModelPlugin(new byte[4096]);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ReadonlyFilter { ReadonlyFile = _file });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(plugin.Opens, Is.EqualTo(new[] { ("", false) }));
        Assert.That(disk.Info, Is.EqualTo(plugin.Info with { Size = 4096 }));
        Func<Task>[] changes =
        [
            async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.Fua, default),
            async () => await disk.TrimAsync(0, 1, RequestFlags.None, default),
            async () => await disk.ZeroAsync(0, 1, RequestFlags.None, default),
            async () => await disk.ZeroAsync(0, 1, RequestFlags.FastZero, default),
        ];
        for (int round = 0; round < 2; round++)
        {
            await File.WriteAllTextAsync(_file, "");
            foreach (Func<Task> change in changes)
            {
                Assert.That(TestData.Failure(change).Error, Is.EqualTo(NbdError.PermissionDenied));
            }
            await disk.FlushAsync(default);
            await disk.CacheAsync(0, 1, default);
            await TestData.ReadAsync(disk, 0, 1);
            Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "flush", "cache 0+1", "read 0+1" }));

            File.Delete(_file);
            foreach (Func<Task> change in changes)
            {
                await change();
            }
            Assert.That(plugin.TakeCalls(), Has.Length.EqualTo(4));
        }
    }

    [Test]
    public async Task Zeroes_that_the_library_writes_are_refused_too()
    {
        var plugin = new ModelPlugin(new byte[4096], ModelPlugin.Everything with { CanZero = Support.Emulate });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ReadonlyFilter { ReadonlyFile = _file });
        await using NextContext disk = await chain.OpenAsync();
        Directory.CreateDirectory(_file);
        NbdException e = TestData.Failure(async () => await disk.ZeroAsync(0, 1, RequestFlags.None, default));
        Assert.That(e.Error, Is.EqualTo(NbdError.PermissionDenied));
        Assert.That(plugin.TakeCalls(), Is.Empty);
    }

    [Test]
    public async Task With_a_file_an_export_that_is_opened_read_only_stays_so()
    {
        var plugin = new ModelPlugin(new byte[4096]);
        await using NbdBackend chain = NbdBackend.Compose(plugin, new ReadonlyFilter { ReadonlyFile = _file });
        await using NextContext disk = await chain.OpenAsync(readOnly: true);
        Assert.That(plugin.Opens, Is.EqualTo(new[] { ("", true) }));
        Assert.That(disk.Info.CanWrite, Is.False);
    }

    [Test]
    public async Task With_a_switch_writes_are_refused_while_it_is_on()
    {
        var plugin = new ModelPlugin(new byte[4096]);
        var filter = new ReadonlyFilter { IsSwitchable = true };
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(plugin.Opens, Is.EqualTo(new[] { ("", false) }));
        Assert.That(disk.Info, Is.EqualTo(plugin.Info with { Size = 4096 }));
        Func<Task>[] changes =
        [
            async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default),
            async () => await disk.TrimAsync(0, 1, RequestFlags.None, default),
            async () => await disk.ZeroAsync(0, 1, RequestFlags.None, default),
        ];
        for (int round = 0; round < 2; round++)
        {
            filter.ReadOnly = true;
            foreach (Func<Task> change in changes)
            {
                Assert.That(TestData.Failure(change).Error, Is.EqualTo(NbdError.PermissionDenied));
            }
            await disk.FlushAsync(default);
            await TestData.ReadAsync(disk, 0, 1);
            Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "flush", "read 0+1" }));
            filter.ReadOnly = false;
            foreach (Func<Task> change in changes)
            {
                await change();
            }
            Assert.That(plugin.TakeCalls(), Has.Length.EqualTo(3));
        }
    }

    [Test]
    public async Task The_switch_and_the_file_refuse_each_on_its_own_and_the_switch_is_not_heeded_unasked()
    {
        var plugin = new ModelPlugin(new byte[4096]);
        var both = new ReadonlyFilter { IsSwitchable = true, ReadOnly = false, ReadonlyFile = _file };
        await using NbdBackend chain = NbdBackend.Compose(plugin, both, new ReadonlyFilter { ReadonlyFile = _file + ".other" });
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default);
        await File.WriteAllTextAsync(_file, "");
        Assert.That(
            TestData.Failure(async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default)).Error,
            Is.EqualTo(NbdError.PermissionDenied));
        File.Delete(_file);
        both.ReadOnly = true;
        Assert.That(
            TestData.Failure(async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, default)).Error,
            Is.EqualTo(NbdError.PermissionDenied));
        await using NbdBackend permanent = NbdBackend.Compose(new ModelPlugin(new byte[1]), new ReadonlyFilter { ReadOnly = false });
        await using NextContext readOnly = await permanent.OpenAsync();
        Assert.That(readOnly.Info.CanWrite, Is.False);
    }

    [Test]
    public void A_relative_path_is_resolved_once()
    {
        var filter = (ReadonlyFilter)ReadonlyFilter.Entry.Create(
            new NbdParameters("readonly", [new("readonly-file", "some.lock")]));
        Assert.That(filter.ReadonlyFile, Is.EqualTo(Path.GetFullPath("some.lock")));
        Assert.That(((ReadonlyFilter)ReadonlyFilter.Entry.Create(new NbdParameters("readonly", []))).ReadonlyFile, Is.Null);
        Assert.That(() => new ReadonlyFilter { ReadonlyFile = "" }, Throws.ArgumentException);
    }
}
