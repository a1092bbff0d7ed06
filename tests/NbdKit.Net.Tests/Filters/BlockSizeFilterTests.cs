using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class BlockSizeFilterTests
{
    private static readonly BlockSize Blocks = new(512, 4096, 8192);

    private static ModelPlugin Plugin(int size = 65_536, BlockSize? blocks = null, NbdExportInfo? info = null)
        => new(TestData.Random(size), (info ?? ModelPlugin.Everything) with { BlockSize = blocks ?? Blocks });

    private static NbdBackend Chain(ModelPlugin plugin, long? minBlock = null, long? maxData = null, long? maxLength = null)
        => NbdBackend.Compose(plugin, new BlockSizeFilter { MinBlock = minBlock, MaxData = maxData, MaxLength = maxLength });

    [TestCase(1000, 512, 512)]
    [TestCase(511, 512, 0)]
    [TestCase(65_536, 512, 65_536)]
    [TestCase(70_000, 65_536, 65_536)]
    public async Task The_size_is_rounded_down_to_whole_blocks(int size, int block, long served)
    {
        await using NbdBackend chain = Chain(Plugin(size, new BlockSize(1, 512)), block);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(served));
    }

    [TestCase(null, 512, 4096)]
    [TestCase(8192L, 512, 8192)]
    [TestCase(64L, 16384, 16384)]
    public async Task Any_alignment_and_size_is_offered(long? minBlock, int preferred, long offered)
    {
        await using NbdBackend chain = Chain(Plugin(blocks: new BlockSize(512, preferred)), minBlock);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.BlockSize, Is.EqualTo(new BlockSize(1, offered)));
    }

    [Test]
    public async Task Aligned_requests_pass_as_they_are()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ReadAsync(new byte[1024], 512, default);
        await disk.WriteAsync(new byte[1024], 512, RequestFlags.Fua, default);
        await disk.TrimAsync(512, 65_024, RequestFlags.Fua, default);
        await disk.ZeroAsync(512, 65_024, RequestFlags.MayTrim | RequestFlags.FastZero, default);
        await disk.CacheAsync(512, 1024, default);
        await disk.FlushAsync(default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "read 512+1024", "write 512+1024 Fua", "trim 512+65024 Fua", "zero 512+65024 MayTrim, FastZero", "cache 512+1024", "flush",
        }));
    }

    [Test]
    public async Task A_small_unaligned_read_is_one_read_of_whole_blocks()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 511, 1026), Is.EqualTo(plugin.Data[511..1537]));
        Assert.That(await TestData.ReadAsync(disk, 65_535, 1), Is.EqualTo(plugin.Data[^1..]));
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "read 0+2048", "read 65024+512" }));
    }

    [Test]
    public async Task A_large_read_is_split_and_only_its_ends_are_copied()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TestData.ReadAsync(disk, 100, 20_000), Is.EqualTo(plugin.Data[100..20_100]));
        Assert.That(
            plugin.TakeCalls(), Is.EqualTo(new[] { "read 0+512", "read 512+8192", "read 8704+8192", "read 16896+3584" }));
    }

    [Test]
    public async Task An_unaligned_write_reads_and_writes_back_the_blocks_at_its_ends()
    {
        ModelPlugin plugin = Plugin();
        byte[] expected = [.. plugin.Data];
        byte[] data = TestData.Random(20_000, 2);
        data.CopyTo(expected, 100);
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(data, 100, RequestFlags.Fua, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "read 0+512", "write 0+512 Fua",
            "write 512+8192 Fua", "write 8704+8192 Fua", "write 16896+3072 Fua",
            "read 19968+512", "write 19968+512 Fua",
        }));
        Assert.That(plugin.Data, Is.EqualTo(expected));
        Assert.That(plugin.Stable, Is.EqualTo(expected));
    }

    [Test]
    public async Task A_write_inside_one_block_changes_nothing_else()
    {
        ModelPlugin plugin = Plugin();
        byte[] expected = [.. plugin.Data];
        expected[700] = 1;
        expected[701] = 2;
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[] { 1, 2 }, 700, RequestFlags.None, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "read 512+512", "write 512+512" }));
        Assert.That(plugin.Data, Is.EqualTo(expected));
    }

    [Test]
    public async Task Emulated_FUA_is_one_flush_after_all_pieces()
    {
        ModelPlugin plugin = Plugin(info: ModelPlugin.Everything with { CanFua = Support.Emulate });
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[1000], 100, RequestFlags.Fua, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "read 0+512", "write 0+512", "write 512+512", "read 1024+512", "write 1024+512", "flush",
        }));
        await disk.ZeroAsync(100, 1000, RequestFlags.Fua, default);
        Assert.That(plugin.TakeCalls(), Has.Exactly(1).EqualTo("flush"));
    }

    [Test]
    public async Task A_trim_leaves_blocks_alone_that_it_covers_in_part()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin, maxLength: 1024);
        await using NextContext disk = await chain.OpenAsync();
        await disk.TrimAsync(1, 2559, RequestFlags.Fua, default);
        await disk.TrimAsync(1, 510, RequestFlags.None, default);
        await disk.TrimAsync(1, 1022, RequestFlags.None, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "trim 512+1024 Fua", "trim 1536+1024 Fua" }));
    }

    [Test]
    public async Task A_zero_clears_the_parts_of_blocks_at_its_ends_by_writing()
    {
        ModelPlugin plugin = Plugin();
        byte[] expected = [.. plugin.Data];
        expected.AsSpan(500, 3000).Clear();
        await using NbdBackend chain = Chain(plugin, maxLength: 2048);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(500, 3000, RequestFlags.MayTrim | RequestFlags.Fua, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "read 0+512", "write 0+512 Fua", "zero 512+2048 Fua, MayTrim", "zero 2560+512 Fua, MayTrim",
            "read 3072+512", "write 3072+512 Fua",
        }));
        Assert.That(plugin.Data, Is.EqualTo(expected));
    }

    [TestCase(1, 1024)]
    [TestCase(512, 1000)]
    [TestCase(0, 4096)]
    public async Task A_fast_zero_that_takes_more_than_one_request_is_refused(long offset, long length)
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin, maxLength: 2048);
        await using NextContext disk = await chain.OpenAsync();
        NbdException e = TestData.Failure(async () => await disk.ZeroAsync(offset, length, RequestFlags.FastZero, default));
        Assert.That(e.Error, Is.EqualTo(NbdError.NotSupported));
        Assert.That(plugin.TakeCalls(), Is.Empty);
    }

    [Test]
    public async Task Emulated_zeroes_heed_the_largest_write()
    {
        ModelPlugin plugin = Plugin(info: ModelPlugin.Everything with { CanZero = Support.Emulate });
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 10_240, RequestFlags.None, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "write 0+8192", "write 8192+2048" }));
    }

    [Test]
    public async Task A_cache_request_is_rounded_out_and_split_like_data()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin, maxData: 1024);
        await using NextContext disk = await chain.OpenAsync();
        await disk.CacheAsync(1000, 2000, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "cache 512+1024", "cache 1536+1024", "cache 2560+512" }));
    }

    [Test]
    public async Task Without_blocks_nothing_is_ever_read_to_be_written_back()
    {
        ModelPlugin plugin = Plugin(blocks: default(BlockSize));
        await using NbdBackend chain = Chain(plugin, maxData: 1000);
        await using NextContext disk = await chain.OpenAsync();
        await disk.WriteAsync(new byte[2500], 1, RequestFlags.None, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "write 1+1000", "write 1001+1000", "write 2001+500" }));
    }

    [Test]
    public async Task Limits_of_the_layer_below_win_where_they_are_tighter()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin, minBlock: 256, maxData: 1 << 20);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ReadAsync(new byte[16_384], 0, default);
        await disk.ReadAsync(new byte[256], 256, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "read 0+8192", "read 8192+8192", "read 0+512" }));
    }

    [Test]
    public async Task Limits_smaller_than_a_block_of_the_layer_below_fail_the_open()
    {
        await using NbdBackend chain = Chain(Plugin(), maxData: 256);
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.Contain("512 bytes"));
    }

    [Test]
    public async Task A_failed_read_of_a_block_leaves_it_as_it_was()
    {
        ModelPlugin plugin = Plugin();
        byte[] before = [.. plugin.Data];
        plugin.Before = call => call.StartsWith("read", StringComparison.Ordinal)
            ? throw new NbdException(NbdError.IoError, "bad sector") : Task.CompletedTask;
        await using NbdBackend chain = Chain(plugin);
        await using NextContext disk = await chain.OpenAsync();
        NbdException e = TestData.Failure(async () => await disk.WriteAsync(new byte[10], 5, RequestFlags.None, default));
        Assert.That(e.Error, Is.EqualTo(NbdError.IoError));
        Assert.That(plugin.Data, Is.EqualTo(before));
        plugin.Before = null;
        await disk.WriteAsync(new byte[10], 5, RequestFlags.None, default);
        Assert.That(plugin.Data.AsSpan(5, 10).ContainsAnyExcept((byte)0), Is.False, "the block must not stay locked");
    }

    [TestCase(0)]
    [TestCase(3)]
    [TestCase(-512)]
    [TestCase(131_072)]
    public void A_block_must_be_a_power_of_two_up_to_64K(long block)
        => Assert.That(() => new BlockSizeFilter { MinBlock = block }, Throws.TypeOf<ArgumentOutOfRangeException>());

    [Test]
    public void Limits_must_be_positive_and_data_must_fit_in_memory()
    {
        Assert.That(() => new BlockSizeFilter { MaxData = 0 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new BlockSizeFilter { MaxData = 1L << 31 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new BlockSizeFilter { MaxLength = 0 }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [TestCase("maxdata", "1000")]
    [TestCase("maxlen", "513")]
    public async Task Limits_must_be_multiples_of_the_block(string name, string value)
    {
        Assert.That(
            () => BlockSizeFilter.Entry.Create(new NbdParameters("blocksize", [new("minblock", "512"), new(name, value)])),
            Throws.ArgumentException.With.Message.Contains($"{name}={value}"));
        await using NbdBackend chain = name == "maxdata" ? Chain(Plugin(), 512, maxData: 1000) : Chain(Plugin(), 512, maxLength: 513);
        Assert.That(async () => await chain.OpenAsync(), Throws.ArgumentException);
    }

    [Test]
    public void The_entry_reads_its_parameters()
    {
        var filter = (BlockSizeFilter)BlockSizeFilter.Entry.Create(
            new NbdParameters("blocksize", [new("minblock", "4K"), new("maxdata", "1M"), new("maxlen", "1T")]));
        Assert.That((filter.MinBlock, filter.MaxData, filter.MaxLength), Is.EqualTo(((long?)4096, (long?)1048576, (long?)(1L << 40))));
    }
}
