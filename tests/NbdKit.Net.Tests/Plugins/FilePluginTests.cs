using Microsoft.Win32.SafeHandles;
using NbdKit.Buffers;
using NbdKit.Native;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class FilePluginTests
{
    private ScratchDirectory _scratch = null!;

    [SetUp]
    public void SetUp() => _scratch = new ScratchDirectory();

    [TearDown]
    public void TearDown() => _scratch.Dispose();

    [TestCase(1)]
    [TestCase(511)]
    [TestCase(513)]
    [TestCase(4097)]
    [TestCase(SparseFile.InlineBytes)]
    [TestCase(SparseFile.InlineBytes + 1)]
    [TestCase((2 << 20) + 7)]
    public async Task A_file_of_any_size_is_read_and_written_up_to_its_last_byte(int size)
    {
        byte[] content = Content(size, seed: size);
        string path = _scratch.Write("disk", content);
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(size));
        await ExpectAsync(disk, 0, content);
        await ExpectAsync(disk, size - 1, content[^1..]);

        byte[] changed = Content(size, seed: size + 1);
        await disk.WriteAsync(changed, 0, RequestFlags.None, default);
        await disk.WriteAsync(new byte[] { 0xEE }, size - 1, RequestFlags.Fua, default);
        await disk.FlushAsync(default);
        changed[^1] = 0xEE;
        Assert.That(File.ReadAllBytes(path).SequenceEqual(changed), "the file");
        await ExpectAsync(disk, 0, changed);
    }

    [Test]
    public async Task An_empty_file_is_an_empty_export()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = _scratch.Write("disk", []) });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.Zero);
        Assert.That(disk.Info.CanWrite, Is.True);
        Assert.That(async () => await disk.FlushAsync(default), Throws.Nothing);
    }

    [Test]
    public async Task The_size_is_that_of_the_file_when_it_was_opened()
    {
        string path = _scratch.Write("disk", Content(1000, 1));
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext before = await chain.OpenAsync();
        await File.AppendAllTextAsync(path, "more");
        await using NextContext after = await chain.OpenAsync();
        Assert.That((before.Info.Size, after.Info.Size), Is.EqualTo((1000L, 1004L)));
    }

    [TestCase(0, 100)]
    [TestCase(50, 100)]
    [TestCase(100, 100)]
    [TestCase(0, SparseFile.InlineBytes + 1)]
    public async Task A_read_fails_if_the_file_has_become_shorter(int newSize, int length)
    {
        string path = _scratch.Write("disk", Content(SparseFile.InlineBytes * 2, 1));
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        using (SafeFileHandle file = File.OpenHandle(path, FileMode.Open, FileAccess.Write, FileShare.ReadWrite))
        {
            RandomAccess.SetLength(file, newSize);
        }
        NbdException failure = Assert.ThrowsAsync<NbdException>(
            async () => await disk.ReadAsync(new byte[length], 1, default))!;
        Assert.That(failure.Error, Is.EqualTo(NbdError.IoError));
        Assert.That(failure.Message, Does.Contain("shorter"));
        if (newSize > 0)
        {
            Assert.That((await ReadAsync(disk, 0, newSize)).Length, Is.EqualTo(newSize));
        }
    }

    [Test]
    public async Task Parallel_requests_read_and_write_what_they_should([Values] FileCacheMode cache)
    {
        const int Seed = 4711;
        const int Slot = 6000;
        const int Slots = 40;
        string path = _scratch.WriteHole("disk", Slot * Slots);
        var plugin = new FilePlugin { Path = path, Cache = cache };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using (NextContext disk = await chain.OpenAsync())
        {
            await Parallel.ForAsync(0, Slots, new ParallelOptions { MaxDegreeOfParallelism = 8 }, async (slot, token) =>
            {
                for (int round = 0; round < 5; round++)
                {
                    byte[] data = Content(Slot, Seed + (slot * 10) + round);
                    RequestFlags flags = round == 4 && slot % 8 == 0 ? RequestFlags.Fua : RequestFlags.None;
                    await disk.WriteAsync(data, slot * (long)Slot, flags, token);
                    await ExpectAsync(disk, slot * (long)Slot, data, $"seed {Seed}, slot {slot}, round {round}");
                }
            });
        }
        byte[] file = File.ReadAllBytes(path);
        for (int slot = 0; slot < Slots; slot++)
        {
            Assert.That(
                file.AsSpan(slot * Slot, Slot).SequenceEqual(Content(Slot, Seed + (slot * 10) + 4)), $"seed {Seed}, slot {slot}");
        }
    }

    [Test]
    public async Task Two_contexts_are_one_disk()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = _scratch.Write("disk", Content(8192, 1)) });
        await using NextContext one = await chain.OpenAsync();
        await using NextContext two = await chain.OpenAsync("any name");
        await one.WriteAsync(Content(100, 2), 5, RequestFlags.None, default);
        await two.FlushAsync(default);
        Assert.That(await ReadAsync(two, 5, 100), Is.EqualTo(Content(100, 2)));
        Assert.That(two.Info.CanMultiConn, Is.True);
    }

    [Test]
    public async Task A_regular_file_can_do_all_that_it_should()
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new FilePlugin { Path = _scratch.Write("disk", new byte[512]), Advice = FileAdvice.Sequential });
        await using NextContext disk = await chain.OpenAsync();
        NbdExportInfo info = disk.Info;
        Assert.That(info.CanWrite && info.CanFlush && info.CanMultiConn && info.CanFastZero, Is.True);
        Assert.That(info.CanFua, Is.EqualTo(Support.Native));
        Assert.That(info.IsRotational, Is.False);
        Assert.That(info.IsBlocking, Is.False);
        Assert.That(info.BlockSize.IsKnown, Is.False);
        Assert.That(info.CanTrim, Is.EqualTo(LinuxFile.IsAvailable));
        Assert.That(info.CanZero, Is.EqualTo(LinuxFile.IsAvailable ? Support.Native : Support.Emulate));
        Assert.That(info.CanCache, Is.EqualTo(LinuxFile.IsAvailable ? Support.Native : Support.Emulate));
        Assert.That(async () => await disk.CacheAsync(0, 512, default), Throws.Nothing);
    }

    [Test]
    public async Task A_read_only_open_cannot_write()
    {
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = _scratch.Write("disk", Content(600, 1)) });
        await using NextContext disk = await chain.OpenAsync(readOnly: true);
        Assert.That((disk.Info.CanWrite, disk.Info.CanTrim), Is.EqualTo((false, false)));
        Assert.That(await ReadAsync(disk, 0, 600), Is.EqualTo(Content(600, 1)));
        Assert.That(async () => await disk.FlushAsync(default), Throws.Nothing);
    }

    [Test]
    [Platform("Linux")]
    public async Task A_file_that_may_only_be_read_is_served_read_only()
    {
        // Not even root may open this one for writing. Its size is a page, and its content shorter.
        const string Path = "/sys/devices/system/cpu/possible";
        Assume.That(File.Exists(Path));
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = Path });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.CanWrite, Is.False);
        Assert.That(await ReadAsync(disk, 0, 1), Is.EqualTo("0"u8.ToArray()));
    }

    [Test]
    public async Task A_file_that_disappears_fails_the_next_open_and_no_request()
    {
        string path = _scratch.Write("disk", Content(600, 1));
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        File.Delete(path);
        NbdException failure = Assert.ThrowsAsync<NbdException>(async () => await chain.OpenAsync())!;
        Assert.That(failure.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(failure.Message, Does.StartWith("cannot open the file").And.Not.Contains(_scratch.Path));
        Assert.That(await ReadAsync(disk, 0, 600), Is.EqualTo(Content(600, 1)));
    }

    [Test]
    public async Task What_the_page_cache_holds_is_read_at_once_and_without_garbage()
    {
        string path = _scratch.Write("disk", Content(1 << 20, 1));
        RequireReadNow(path);
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        byte[] buffer = new byte[4096];
        (int synchronous, long garbage) = ReadOften(disk, buffer, 10);
        (synchronous, garbage) = ReadOften(disk, buffer, 200);
        Assert.That((synchronous, garbage), Is.EqualTo((200, 0L)));
        Assert.That(buffer, Is.EqualTo(Content(1 << 20, 1)[(199 * 4096)..(200 * 4096)]));
    }

    [Test]
    public async Task Without_cache_neither_reads_nor_writes_leave_pages_behind()
    {
        string path = _scratch.Write("disk", new byte[1 << 20]);
        RequireReadNow(path);
        var plugin = new FilePlugin { Path = path, Cache = FileCacheMode.None };
        await using NbdBackend chain = NbdBackend.Compose(plugin);
        await using (NextContext disk = await chain.OpenAsync())
        {
            await disk.FlushAsync(default);
            await ReadAsync(disk, 0, 1 << 20);
            Assert.That(CachedBytes(path), Is.Zero, "after a read");
            for (int i = 0; i < 16; i++)
            {
                await disk.WriteAsync(Content(1 << 16, i), i << 16, RequestFlags.None, default);
            }
        }
        Assert.That(CachedBytes(path), Is.Zero, "after writes and the close");
        Assert.That(File.ReadAllBytes(path)[(15 << 16)..].SequenceEqual(Content(1 << 16, 15)), "the file");
    }

    [Test]
    public async Task A_request_that_was_given_up_is_not_carried_out()
    {
        string path = _scratch.Write("disk", Content(8192, 1));
        await using NbdBackend chain = NbdBackend.Compose(new FilePlugin { Path = path });
        await using NextContext disk = await chain.OpenAsync();
        var gone = new CancellationToken(canceled: true);
        Assert.That(
            async () => await disk.WriteAsync(new byte[8192], 0, RequestFlags.Fua, gone), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(async () => await disk.FlushAsync(gone), Throws.InstanceOf<OperationCanceledException>());
        Assert.That(File.ReadAllBytes(path), Is.EqualTo(Content(8192, 1)));
    }

    internal static byte[] Content(int size, int seed)
    {
        byte[] content = new byte[size];
        new Random(seed).NextBytes(content);
        return content;
    }

    internal static async Task<byte[]> ReadAsync(NextContext disk, long offset, int length)
    {
        byte[] buffer = new byte[length];
        await disk.ReadAsync(buffer, offset, default);
        return buffer;
    }

    internal static async Task ExpectAsync(NextContext disk, long offset, byte[] expected, string message = "")
    {
        byte[] actual = await ReadAsync(disk, offset, expected.Length);
        int same = actual.AsSpan().CommonPrefixLength(expected);
        Assert.That(same, Is.EqualTo(expected.Length), $"the number of bytes that are right at {offset}; {message}");
    }

    private static (int Synchronous, long Garbage) ReadOften(NextContext disk, byte[] buffer, int times)
    {
        int synchronous = 0;
        long before = GC.GetAllocatedBytesForCurrentThread();
        for (int i = 0; i < times; i++)
        {
            ValueTask read = disk.ReadAsync(buffer, i * 4096L, default);
            if (read.IsCompletedSuccessfully)
            {
                synchronous++;
            }
            read.AsTask().GetAwaiter().GetResult();
        }
        return (synchronous, GC.GetAllocatedBytesForCurrentThread() - before);
    }

    private static void RequireReadNow(string path)
    {
        using SparseFile? file = LinuxFile.IsAvailable ? SparseFile.Open(path, true, true, FileOptions.None) : null;
        if (file is null || LinuxFile.ReadNow(file.Handle, new byte[1], 0, out _) == NbdKit.Native.Errno.NotSupported)
        {
            Assert.Ignore("This file system cannot tell what its page cache holds.");
        }
    }

    private static int CachedBytes(string path)
    {
        using SparseFile file = SparseFile.Open(path, true, true, FileOptions.None);
        int cached = 0;
        byte[] page = new byte[4096];
        // Backwards, as a read of one page may start reading those after it.
        for (long offset = file.Size - page.Length; offset >= 0; offset -= page.Length)
        {
            LinuxFile.ReadNow(file.Handle, page, offset, out int count);
            cached += count;
        }
        return cached;
    }
}
