using Microsoft.Win32.SafeHandles;
using NbdKit.Buffers;
using NbdKit.Native;
using NbdKit.Plugins;
using NbdKit.Tests.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Buffers;

public sealed class SparseFileTests
{
    private ScratchDirectory _scratch = null!;

    [SetUp]
    public void SetUp() => _scratch = new ScratchDirectory();

    [TearDown]
    public void TearDown() => _scratch.Dispose();

    [Test]
    public async Task A_temporary_file_reads_as_zeroes_and_has_no_name()
    {
        using (SparseFile file = SparseFile.CreateTemporary(_scratch.Path, 1L << 40))
        {
            if (!OperatingSystem.IsWindows())
            {
                Assert.That(Directory.GetFiles(_scratch.Path), Is.Empty);
            }
            Assert.That((file.Size, file.CanWrite), Is.EqualTo((1L << 40, true)));
            byte[] buffer = FilePluginTests.Content(5000, 1);
            await file.ReadAsync(buffer, (1L << 40) - 5000, default);
            Assert.That(buffer, Is.All.Zero);
            await file.WriteAsync(FilePluginTests.Content(5000, 2), 1L << 39, durable: false, default);
            await file.ReadAsync(buffer, 1L << 39, default);
            Assert.That(buffer, Is.EqualTo(FilePluginTests.Content(5000, 2)));
        }
        Assert.That(Directory.GetFiles(_scratch.Path), Is.Empty);
    }

    [Test]
    public void A_temporary_file_that_cannot_be_created_says_so()
        => Assert.That(
            () => SparseFile.CreateTemporary(_scratch["nowhere"], 1),
            Throws.InstanceOf<NbdException>().With.Message.Contains("temporary file"));

    [Test]
    public async Task Without_the_system_calls_of_Linux_all_is_done_by_the_framework()
    {
        string path = _scratch.Write("disk", FilePluginTests.Content(600_000, 1));
        using SparseFile file = SparseFile.Open(path, false, false, FileOptions.RandomAccess, native: false);
        NbdExportInfo info = await new FileHandle(file, FileCacheMode.Default).GetInfoAsync(default);
        Assert.That((info.Size, info.CanWrite, info.CanTrim, info.CanExtents), Is.EqualTo((600_000L, true, false, false)));
        Assert.That((info.CanZero, info.CanCache, info.CanFua), Is.EqualTo((Support.Emulate, Support.Emulate, Support.Native)));
        await file.WriteAsync(FilePluginTests.Content(300_000, 2), 1, durable: true, default);
        byte[] buffer = new byte[300_000];
        await file.ReadAsync(buffer, 1, default);
        Assert.That(buffer.SequenceEqual(FilePluginTests.Content(300_000, 2)));
        await file.FlushAsync(default);
        await file.TrimAsync(0, 600_000, durable: true, default);
        await file.CacheAsync(0, 600_000, default);
        Assert.That(
            async () => await file.ZeroAsync(0, 10, RequestFlags.None, default),
            Throws.InstanceOf<NbdException>().With.Property("Error").EqualTo(NbdError.NotSupported));
        await file.ReadAsync(buffer, 1, default);
        Assert.That(buffer.SequenceEqual(FilePluginTests.Content(300_000, 2)));
    }

    [Test]
    public void Without_the_system_calls_of_Linux_opens_fail_as_with_them([Values] bool native)
    {
        Assume.That(!native || LinuxFile.IsAvailable);
        File.CreateSymbolicLink(_scratch["link"], _scratch.Write("disk", [1]));
        Assert.That(ErrorOf("missing", native), Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(ErrorOf("no/where", native), Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(ErrorOf("link", native), Is.EqualTo(NbdError.PermissionDenied));
        using SparseFile readOnly = SparseFile.Open(_scratch["disk"], true, true, FileOptions.None, native);
        Assert.That(readOnly.CanWrite, Is.False);
    }

    [Test]
    [Platform("Linux")]
    public void What_may_only_be_read_is_opened_read_only([Values] bool native)
    {
        const string Path = "/sys/devices/system/cpu/possible";
        Assume.That(File.Exists(Path));
        using SparseFile file = SparseFile.Open(Path, readOnly: false, true, FileOptions.None, native);
        Assert.That(file.CanWrite, Is.False);
    }

    [Test]
    public void A_write_through_a_handle_that_cannot_fails_with_EPERM()
    {
        using SparseFile file = SparseFile.Open(_scratch.Write("disk", [1]), true, true, FileOptions.None);
        Assert.That(
            async () => await file.WriteAsync(new byte[1], 0, false, default),
            Throws.InstanceOf<NbdException>().With.Property("Error").EqualTo(NbdError.PermissionDenied));
    }

    [Test]
    public async Task Data_that_was_lost_fails_every_flush_from_then_on()
    {
        using SparseFile file = SparseFile.Open(_scratch.Write("disk", [1]), false, true, FileOptions.None);
        await file.FlushAsync(default);
        file.NoteLoss(NbdKit.Native.Errno.NoSpace);
        for (int i = 0; i < 2; i++)
        {
            Assert.That(
                async () => await file.FlushAsync(default),
                Throws.InstanceOf<NbdException>().With.Property("Error").EqualTo(NbdError.NoSpace));
            Assert.That(
                async () => await file.WriteAsync(new byte[1], 0, durable: true, default),
                Throws.InstanceOf<NbdException>().With.Property("Error").EqualTo(NbdError.NoSpace));
        }
        Assert.That(async () => await file.WriteAsync(new byte[1], 0, durable: false, default), Throws.Nothing);
    }

    [Test]
    public void A_handle_of_something_else_is_refused()
    {
        using SafeFileHandle directory = LinuxFile.IsAvailable
            ? LinuxFile.Open(_scratch.Path, write: false, nonBlocking: true, out _)!
            : new SafeFileHandle();
        Assume.That(directory.IsInvalid, Is.False);
        Assert.That(() => new SparseFile(directory, false, native: true), Throws.InstanceOf<NbdException>());
    }

    private NbdError? ErrorOf(string name, bool native)
    {
        try
        {
            SparseFile.Open(_scratch[name], false, false, FileOptions.None, native).Dispose();
            return null;
        }
        catch (NbdException e)
        {
            return e.Error;
        }
    }
}
