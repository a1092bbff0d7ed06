using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class BlockSizeFilterExtentsTests
{
    // Blocks of 4096: data | mixed | zero | zero, and an end that is no whole block.
    private static readonly byte[] Content = MakeContent();

    private static byte[] MakeContent()
    {
        byte[] content = new byte[(4 * 4096) + 100];
        content.AsSpan(0, 5000).Fill(1);
        return content;
    }

    private static NbdBackend Chain(INbdPlugin plugin, long? maxLength = null, long block = 4096)
        => NbdBackend.Compose(plugin, new BlockSizeFilter { MinBlock = block, MaxLength = maxLength });

    private static async Task<List<(long Offset, long Length, bool Zero)>> AskAsync(
        NextContext disk, long offset, long length, RequestFlags flags)
    {
        var extents = new ExtentList(offset, disk.Info.Size);
        await disk.ExtentsAsync(offset, length, flags, extents, default);
        return [.. extents.Select(e => (e.Offset, e.Length, (e.Status & ExtentStatus.Zero) != 0))];
    }

    [Test]
    public async Task A_mixed_block_is_reported_as_data()
    {
        await using NbdBackend chain = Chain(new ModelPlugin(Content));
        await using NextContext disk = await chain.OpenAsync();
        List<(long Offset, long Length, bool Zero)> extents = await AskAsync(disk, 0, disk.Info.Size, RequestFlags.None);
        Assert.That(extents.TakeWhile(e => !e.Zero).Sum(e => e.Length), Is.EqualTo(8192));
        Assert.That(extents.SkipWhile(e => !e.Zero).All(e => e.Zero), Is.True);
        Assert.That(extents[^1].Offset + extents[^1].Length, Is.EqualTo(16_384));
    }

    [TestCase(0, false)]
    [TestCase(4097, false)]
    [TestCase(8191, false)]
    [TestCase(8192, true)]
    [TestCase(16_383, true)]
    public async Task One_extent_begins_where_it_was_asked_for_and_is_true(long offset, bool zero)
    {
        await using NbdBackend chain = Chain(new ModelPlugin(Content));
        await using NextContext disk = await chain.OpenAsync();
        List<(long Offset, long Length, bool Zero)> extents = await AskAsync(disk, offset, 1, RequestFlags.RequestOne);
        Assert.That((extents[0].Offset, extents[0].Zero), Is.EqualTo((offset, zero)));
        Assert.That((offset + extents[0].Length) % 4096, Is.Zero);
    }

    [Test]
    public async Task One_extent_is_found_with_one_question_and_not_by_reading_the_whole_map()
    {
        var plugin = new ModelPlugin(Content);
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await AskAsync(disk, 0, 16_384, RequestFlags.RequestOne);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "extents 0+16384 RequestOne" }));
    }

    [Test]
    public async Task No_more_is_asked_for_than_the_longest_request()
    {
        var plugin = new ModelPlugin(Content);
        await using NbdBackend chain = Chain(plugin, maxLength: 8192);
        await using NextContext disk = await chain.OpenAsync();
        await AskAsync(disk, 100, 16_000, RequestFlags.None);
        Assert.That(plugin.TakeCalls()[0], Is.EqualTo("extents 0+8192"));
    }

    [TestCase(512)]
    [TestCase(4096)]
    [TestCase(65_536)]
    public async Task Rounding_does_not_wrap_at_4_GiB_nor_at_the_end_of_the_largest_disk(int block)
    {
        const int Served = 4 * 65_536;
        foreach (long end in new[] { (1L << 32) + 65_536, long.MaxValue })
        {
            var plugin = new ModelPlugin(new byte[Served - 1]) { Base = end - (Served - 1) };
            await using NbdBackend chain = Chain(plugin, block: block);
            await using NextContext disk = await chain.OpenAsync();
            long size = disk.Info.Size;
            Assert.That(size % block, Is.Zero);
            long first = (plugin.Base + block - 1) / block * block;
            foreach (long offset in new[] { first, size - block - 1, size - block, size - 1 })
            {
                foreach (long asked in new[] { 1, uint.MaxValue - 1, uint.MaxValue, long.MaxValue })
                {
                    long length = Math.Min(asked, size - offset);
                    foreach (RequestFlags flags in new[] { RequestFlags.None, RequestFlags.RequestOne })
                    {
                        List<(long Offset, long Length, bool Zero)> extents = await AskAsync(disk, offset, length, flags);
                        Assert.That(extents[0].Offset, Is.EqualTo(offset));
                        Assert.That(extents[0].Zero, Is.True);
                        Assert.That(extents[^1].Offset + extents[^1].Length, Is.LessThanOrEqualTo(size));
                    }
                }
            }
            Assert.That(plugin.Offence, Is.Null);
        }
    }

    [Test]
    public async Task A_bitmap_of_changes_keeps_its_borders_as_a_mixed_block_must_not_hide_one()
    {
        await using NbdBackend chain = Chain(new BitmapPlugin());
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(100, 8192, "x-test:dirty");
        await disk.ExtentsAsync(100, 3000, RequestFlags.None, extents, default);
        Assert.That(extents[0], Is.EqualTo(new Extent(100, 412, (ExtentStatus)1)));
        Assert.That(extents[1], Is.EqualTo(new Extent(512, 8192 - 512, ExtentStatus.Data)));
    }

    private sealed class BitmapPlugin : INbdPlugin, INbdPluginHandle
    {
        public string Name => "bitmap";

        public ThreadModel ThreadModel => ThreadModel.Parallel;

        public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

        public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
            => new(new NbdExportInfo { Size = 8192, CanExtents = true, MetaContexts = ["x-test:dirty"] });

        public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken) => default;

        public ValueTask ExtentsAsync(
            long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        {
            Assert.That((offset % 4096, length % 4096), Is.EqualTo((0, 0)));
            extents.Add(0, 512, (ExtentStatus)1);
            extents.Add(512, 8192 - 512, ExtentStatus.Data);
            return default;
        }
    }
}
