using NbdKit.Buffers;

namespace NbdKit.Tests.Buffers;

public class OverlayStoreTests
{
    private const long Segment = 1L << 28;

    [Test]
    public async Task What_was_written_is_read_back_wherever_it_is([Values] bool file)
    {
        using IOverlayStore store = file ? new FileOverlayStore(TestContext.CurrentContext.WorkDirectory) : new MemoryOverlayStore(4096);
        var random = new Random(5);
        foreach (long offset in new[] { 0, 4095, Segment - 100, (7 * Segment) + 3, long.MaxValue - 70_000, 1L << 44 })
        {
            var data = new byte[10_000];
            random.NextBytes(data);
            await store.WriteAsync(data, offset, default);
            var back = new byte[10_000];
            await store.ReadAsync(back, offset, default);
            Assert.That(back, Is.EqualTo(data), $"seed 5, offset {offset}");
        }
    }

    [Test]
    public async Task Writes_to_parts_of_a_page_keep_the_rest([Values] bool file)
    {
        using IOverlayStore store = file ? new FileOverlayStore(TestContext.CurrentContext.WorkDirectory) : new MemoryOverlayStore(4096);
        await store.WriteAsync(new byte[] { 1, 2, 3, 4 }, 100, default);
        await store.WriteAsync(new byte[] { 9 }, 102, default);
        var back = new byte[4];
        await store.ReadAsync(back, 100, default);
        Assert.That(back, Is.EqualTo(new byte[] { 1, 2, 9, 4 }));
    }

    [Test]
    public async Task Memory_gives_back_the_whole_pages_of_what_is_discarded()
    {
        using var store = new MemoryOverlayStore(4096);
        await store.WriteAsync(new byte[4096 * 8], 0, default);
        store.Discard(100, 4096);
        Assert.That(store.Allocated, Is.EqualTo(8 * 4096));
        store.Discard(4095, (4096 * 2) + 1);
        Assert.That(store.Allocated, Is.EqualTo(6 * 4096));
        store.Discard(0, long.MaxValue);
        Assert.That(store.Allocated, Is.Zero);
    }

    [Test]
    public async Task The_file_is_made_by_the_first_write_and_nobody_else_sees_it()
    {
        string directory = Directory.CreateTempSubdirectory("overlay").FullName;
        try
        {
            using (var store = new FileOverlayStore(directory))
            {
                await store.ReadAsync(new byte[10], 0, default);
                await store.WriteAsync(new byte[] { 1 }, 0, default);
                if (!OperatingSystem.IsWindows())
                {
                    Assert.That(Directory.GetFileSystemEntries(directory), Is.Empty);
                }
            }
            Assert.That(Directory.GetFileSystemEntries(directory), Is.Empty);
        }
        finally
        {
            Directory.Delete(directory);
        }
    }

    [Test]
    public void A_store_that_was_disposed_of_makes_no_new_file()
    {
        var store = new FileOverlayStore(TestContext.CurrentContext.WorkDirectory);
        store.Dispose();
        Assert.That(async () => await store.WriteAsync(new byte[1], 0, default), Throws.InstanceOf<ObjectDisposedException>());
    }
}
