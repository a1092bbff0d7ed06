using Microsoft.Win32.SafeHandles;
using NbdKit.Buffers;
using NbdKit.Native;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class FilePluginHandleTests
{
    private ScratchDirectory _scratch = null!;

    [SetUp]
    public void SetUp() => _scratch = new ScratchDirectory(TestContext.CurrentContext.WorkDirectory);

    [TearDown]
    public void TearDown() => _scratch.Dispose();

    [Test]
    public async Task Handles_are_exports_by_name_with_the_rights_that_they_have()
    {
        _scratch.Write("a", TestData.Random(5000, 1));
        _scratch.Write("b", TestData.Random(7000, 2));
        using SafeFileHandle a = File.OpenHandle(_scratch["a"], access: FileAccess.ReadWrite);
        using SafeFileHandle b = File.OpenHandle(_scratch["b"], access: FileAccess.Read);
        File.Delete(_scratch["a"]);
        await using NbdBackend chain = NbdBackend.Compose(
            new FilePlugin { Handles = new Dictionary<string, SafeFileHandle> { ["zwei"] = b, ["one/"] = a, ["again"] = a } });
        var list = new ExportList();
        await chain.ListExportsAsync(list, readOnly: false, null, default);
        Assert.That(list.Select(export => export.Name), Is.EqualTo(new[] { "again", "one/", "zwei" }));
        await using NextContext one = await chain.OpenAsync(exportName: "one/");
        await using NextContext two = await chain.OpenAsync(exportName: "zwei");
        await using NextContext again = await chain.OpenAsync(exportName: "again");
        Assert.That((one.Info.Size, two.Info.Size), Is.EqualTo((5000, 7000)));
        Assert.That((one.Info.CanWrite, two.Info.CanWrite), Is.EqualTo((true, !OperatingSystem.IsLinux())));
        await one.WriteAsync(new byte[] { 1, 2, 3 }, 4997, RequestFlags.Fua, default);
        Assert.That((await TestData.ReadAsync(again, 0, 5000))[^3..], Is.EqualTo(new byte[] { 1, 2, 3 }));
        Assert.That(await TestData.ReadAsync(two, 0, 7000), Is.EqualTo(TestData.Random(7000, 2)));
        Assert.That(TestData.Failure(async () => await chain.OpenAsync(exportName: "b")).Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Error, Is.EqualTo(NbdError.InvalidArgument));
    }

    [Test]
    public async Task A_handle_that_its_owner_closes_stays_open_for_those_who_have_it()
    {
        _scratch.Write("a", TestData.Random(1 << 20, 1));
        SafeFileHandle handle = File.OpenHandle(_scratch["a"], access: FileAccess.ReadWrite);
        int number = (int)handle.DangerousGetHandle();
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Handle = handle });
        await using (NextContext disk = await chain.OpenAsync(exportName: "any"))
        {
            await using (NextContext other = await chain.OpenAsync())
            {
                await TestData.ReadAsync(other, 0, 10);
            }
            Assert.That(handle.IsClosed, Is.False, "closed by a client that left");
            handle.Dispose();
            await disk.WriteAsync(new byte[] { 9 }, 9, RequestFlags.None, default);
            await disk.FlushAsync(default);
            Assert.That((await TestData.ReadAsync(disk, 0, 1 << 20))[9], Is.EqualTo(9));
            Assert.That(!OperatingSystem.IsLinux() || File.ResolveLinkTarget($"/proc/self/fd/{number}", false)!.FullName == _scratch["a"]);
        }
        Assert.That(TestData.Failure(async () => await chain.OpenAsync()).Message, Does.Contain("closed by its owner"));
        Assert.That(
            !OperatingSystem.IsLinux() || !File.Exists($"/proc/self/fd/{number}")
            || File.ResolveLinkTarget($"/proc/self/fd/{number}", false)?.FullName != _scratch["a"], "still open");
    }

    [Test]
    public void What_one_context_of_a_handle_lost_no_other_one_flushes()
    {
        _scratch.Write("a", new byte[100]);
        using SafeFileHandle handle = File.OpenHandle(_scratch["a"], access: FileAccess.ReadWrite);
        var host = new HostFile(handle);
        using SparseFile one = host.Open(false, FileOptions.None);
        one.NoteLoss(NbdKit.Native.Errno.NoSpace);
        using SparseFile two = host.Open(false, FileOptions.None);
        Assert.That(TestData.Failure(() => two.FlushAsync(default).AsTask()).Error, Is.EqualTo(NbdError.NoSpace));
    }

    [Test]
    public void Handles_that_cannot_be_served_are_refused_at_the_start()
    {
        Assume.That(OperatingSystem.IsLinux());
        using FileStream write = new(_scratch["a"], FileMode.Create, FileAccess.Write);
        using SafeFileHandle directory = LinuxFile.Open(_scratch.Path, false, false, out _)!;
        Assert.That(() => StartAsync(write.SafeFileHandle), Throws.InstanceOf<NbdException>().With.Message.Contains("'x': the file was not opened for reading"));
        Assert.That(() => StartAsync(directory), Throws.InstanceOf<NbdException>().With.Message.Contains("is a directory"));
        using var invalid = new SafeFileHandle();
        Assert.That(() => new FilePlugin { Handle = invalid }, Throws.ArgumentException);
        directory.Dispose();
        Assert.That(() => new FilePlugin { Handle = directory }, Throws.ArgumentException);
        Assert.That(
            () => NbdBackend.Compose(new FilePlugin { Handle = write.SafeFileHandle, Path = "x" }).StartAsync().AsTask(),
            Throws.InvalidOperationException);
    }

    [Test]
    public async Task Without_the_cache_nothing_stays_in_it([Values] bool byHandle)
    {
        Assume.That(LinuxFile.IsAvailable);
        const int Size = 20 << 20;
        byte[] content = TestData.Random(Size, 3);
        string path = _scratch.Write("a", content);
        using SafeFileHandle handle = File.OpenHandle(path, access: FileAccess.ReadWrite);
        RandomAccess.FlushToDisk(handle);
        Assume.That(LinuxFile.IsCached(handle, 0, Size), "the kernel can tell");
        LinuxFile.Advise(handle, 0, Size, LinuxFile.AdviceDontNeed);
        Assume.That(LinuxFile.IsCached(handle, 0, 4096), Is.False, "the file system can drop pages");
        await using NbdBackend chain = NbdBackend.Compose(
            new FilePlugin { Path = byHandle ? null : path, Handle = byHandle ? handle : null, Cache = FileCacheMode.None });
        await using (NextContext disk = await chain.OpenAsync())
        {
            for (int at = 0; at < Size; at += 1 << 20)
            {
                byte[] piece = await TestData.ReadAsync(disk, at, 1 << 20);
                Assert.That(piece.AsSpan().SequenceEqual(content.AsSpan(at, 1 << 20)));
                Assert.That(LinuxFile.IsCached(handle, at, 1 << 20), Is.False, $"what was read at {at}");
                Array.Reverse(piece);
                piece.CopyTo(content, at);
            }
            for (int at = 0; at < Size; at += 1 << 20)
            {
                await disk.WriteAsync(content.AsMemory(at, 1 << 20), at, RequestFlags.None, default);
            }
            await disk.FlushAsync(default);
        }
        for (int at = 0; at < Size; at += 1 << 20)
        {
            Assert.That(LinuxFile.IsCached(handle, at, 1 << 20), Is.False, $"what was written at {at}");
        }
        Assert.That((await File.ReadAllBytesAsync(path)).AsSpan().SequenceEqual(content));
    }

    private static async Task StartAsync(SafeFileHandle handle)
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new FilePlugin { Handles = new Dictionary<string, SafeFileHandle> { ["x"] = handle } });
        await chain.StartAsync();
    }
}
