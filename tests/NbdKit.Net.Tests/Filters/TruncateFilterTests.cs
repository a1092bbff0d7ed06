using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class TruncateFilterTests
{
    private static readonly byte[] Content = TestData.Random(10_000);

    private static async Task<NextContext> OpenAsync(ModelPlugin plugin, TruncateFilter filter)
        => await NbdBackend.Compose(plugin, filter).OpenAsync();

    [TestCase(null, null, null, 10_000)]
    [TestCase(5_000L, null, null, 5_000)]
    [TestCase(0L, null, null, 0)]
    [TestCase(20_000L, null, null, 20_000)]
    [TestCase(null, 4096L, null, 12_288)]
    [TestCase(null, null, 4096L, 8_192)]
    [TestCase(10_001L, 512L, 4096L, 8_192)]
    [TestCase(null, 10_000L, 10_000L, 10_000)]
    [TestCase(null, 7L, null, 10_003)]
    [TestCase(null, null, 20_000L, 0)]
    public async Task Sizes_are_set_then_rounded_up_then_down(long? size, long? up, long? down, long expected)
    {
        var plugin = new ModelPlugin(Content);
        NextContext disk = await OpenAsync(plugin, new TruncateFilter { Size = size, RoundUp = up, RoundDown = down });
        Assert.That(disk.Info.Size, Is.EqualTo(expected));
    }

    [Test]
    public async Task Each_context_has_the_size_of_its_own_layer_below()
    {
        await using NbdBackend chain = NbdBackend.Compose(new Interop.ExportsPlugin(), new TruncateFilter { RoundUp = 1024 });
        await using NextContext small = await chain.OpenAsync("disk");
        await using NextContext large = await chain.OpenAsync("größer");
        Assert.That((small.Info.Size, large.Info.Size), Is.EqualTo((1024L, 1_000_448L)));
        Assert.That(await TestData.ReadAsync(small, 512, 512), Is.All.Zero);
        Assert.That(await TestData.ReadAsync(large, 512, 512), Is.All.EqualTo(6));
    }

    [Test]
    public async Task Requests_across_the_end_are_split_there()
    {
        var plugin = new ModelPlugin(Content);
        await using NextContext disk = await OpenAsync(plugin, new TruncateFilter { Size = 1L << 40 });
        Assert.That(await TestData.ReadAsync(disk, 9_000, 2_000), Is.EqualTo(Content[9_000..].Concat(new byte[1_000])));
        await disk.WriteAsync(new byte[500], 9_900, RequestFlags.Fua, default);
        await disk.TrimAsync(9_990, 1L << 39, RequestFlags.Fua, default);
        await disk.ZeroAsync(9_980, 1L << 39, RequestFlags.MayTrim, default);
        await disk.CacheAsync(9_970, 1L << 39, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[]
        {
            "read 9000+1000", "write 9900+100 Fua", "trim 9990+10 Fua", "zero 9980+20 MayTrim", "cache 9970+30",
        }));
        Assert.That(plugin.Offence, Is.Null);
    }

    [Test]
    public async Task Requests_beyond_the_end_never_reach_the_layer_below()
    {
        var plugin = new ModelPlugin(Content);
        await using NextContext disk = await OpenAsync(plugin, new TruncateFilter { Size = 20_000 });
        Assert.That(await TestData.ReadAsync(disk, 10_000, 10_000), Is.All.Zero);
        await disk.WriteAsync(new byte[10_000], 10_000, RequestFlags.Fua, default);
        await disk.TrimAsync(10_000, 1, RequestFlags.None, default);
        await disk.ZeroAsync(10_000, 10_000, RequestFlags.FastZero, default);
        await disk.CacheAsync(19_999, 1, default);
        ExtentList extents = await disk.ExtentsFullAsync(10_000, 10_000, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[] { new Extent(10_000, 10_000, ExtentStatus.Hole | ExtentStatus.Zero) }));
        Assert.That(plugin.TakeCalls(), Is.Empty);
    }

    [TestCase(10_000)]
    [TestCase(9_999)]
    [TestCase(9_000)]
    public async Task Other_bytes_beyond_the_end_are_refused_before_anything_is_written(long offset)
    {
        var plugin = new ModelPlugin(Content);
        await using NextContext disk = await OpenAsync(plugin, new TruncateFilter { RoundUp = 4096 });
        byte[] data = new byte[(int)(10_001 - offset)];
        data[^1] = 1;
        NbdException e = TestData.Failure(async () => await disk.WriteAsync(data, offset, RequestFlags.None, default));
        Assert.That(e.Error, Is.EqualTo(NbdError.NoSpace));
        Assert.That(plugin.Data, Is.EqualTo(Content));
    }

    // nbdkit takes the length of the last extent from truncate=, which is absent here.
    [Test]
    public async Task What_rounding_up_adds_is_a_hole_up_to_the_new_end()
    {
        await using NextContext disk = await OpenAsync(new ModelPlugin(Content), new TruncateFilter { RoundUp = 1 << 20 });
        ExtentList extents = await disk.ExtentsFullAsync(0, 1 << 20, ExtentList.BaseAllocation, default);
        Assert.That(extents, Is.EqualTo(new[]
        {
            new Extent(0, 10_000, ExtentStatus.Data),
            new Extent(10_000, (1 << 20) - 10_000, ExtentStatus.Hole | ExtentStatus.Zero),
        }));
    }

    [Test]
    public async Task What_was_cut_off_never_shows_in_the_extents()
    {
        await using NextContext disk = await OpenAsync(new ModelPlugin(new byte[10_000]), new TruncateFilter { Size = 600 });
        var extents = new ExtentList(100, long.MaxValue);
        await disk.ExtentsAsync(100, 1, RequestFlags.RequestOne, extents, default);
        Assert.That(extents.Covered, Is.LessThanOrEqualTo(600));
    }

    [Test]
    public async Task The_hole_is_known_even_over_a_layer_that_knows_no_extents()
    {
        var info = ModelPlugin.Everything with { CanExtents = false };
        await using NextContext disk = await OpenAsync(new ModelPlugin(Content, info), new TruncateFilter { Size = 20_000 });
        Assert.That(disk.Info.CanExtents, Is.True);
        ExtentList extents = await disk.ExtentsFullAsync(0, 20_000, ExtentList.BaseAllocation, default);
        Assert.That(extents.Select(e => (e.Offset, e.Status)), Is.EqualTo(new[]
        {
            (0L, ExtentStatus.Data), (10_000L, ExtentStatus.Hole | ExtentStatus.Zero),
        }));
    }

    [Test]
    public async Task A_cut_inside_a_block_fails_the_open()
    {
        var info = ModelPlugin.Everything with { BlockSize = new BlockSize(512, 4096) };
        NbdException e = TestData.Failure(
            async () => await OpenAsync(new ModelPlugin(new byte[8192], info), new TruncateFilter { Size = 1000 }));
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.Contain("blocksize filter"));
    }

    [Test]
    public void A_size_beyond_the_largest_fails_the_open()
    {
        NbdException e = TestData.Failure(
            async () => await OpenAsync(new ModelPlugin(Content), new TruncateFilter { Size = long.MaxValue, RoundUp = 2 }));
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.Contain("2^63-1"));
    }

    [Test]
    public async Task Zeroes_that_are_declined_below_are_written()
    {
        var plugin = new ModelPlugin(Content) { DeclinesZero = true };
        await using NextContext disk = await OpenAsync(plugin, new TruncateFilter { Size = 20_000 });
        await disk.ZeroAsync(9_000, 5_000, RequestFlags.None, default);
        Assert.That(plugin.Data[9_000..], Is.All.Zero);
        Assert.That(plugin.Data[8_999], Is.EqualTo(Content[8_999]));
    }

    // Bytes that no plugin has, with every capability and block size, against an array.
    [Test]
    public async Task Any_history_over_an_extended_disk_agrees_with_an_array([Range(1, 30)] int seed)
    {
        var random = new Random(seed);
        int real = random.Next(1, 20_000);
        int minimum = 1 << random.Next(10);
        int size = (real + random.Next(20_000) + minimum - 1) / minimum * minimum;
        byte[] model = new byte[size];
        random.NextBytes(model.AsSpan(0, real));
        var info = ModelPlugin.Everything with
        {
            BlockSize = new BlockSize(minimum, 4096),
            CanZero = (Support)random.Next(3),
            CanExtents = random.Next(2) == 0,
            CanReadSparse = (Support)random.Next(3),
            CanFua = (Support)random.Next(3),
            CanCache = (Support)random.Next(3),
        };
        var plugin = new ModelPlugin(model[..real], info, new Random(seed)) { Yields = random.Next(2) == 0 };
        await using NextContext disk = await OpenAsync(plugin, new TruncateFilter { Size = real, RoundUp = size });
        Assert.That(disk.Info.Size, Is.EqualTo(size));
        for (int i = 0; i < 200; i++)
        {
            int units = size / minimum;
            int from = random.Next(units);
            int length = random.Next(1, units - from + 1) * minimum;
            int offset = from * minimum;
            string step = $"seed {seed}: #{i} {offset}+{length} of {real} and {size}";
            switch (random.Next(6))
            {
                case 0:
                    Assert.That(await TestData.ReadAsync(disk, offset, length), Is.EqualTo(model[offset..(offset + length)]), step);
                    break;
                case 1:
                    byte[] data = new byte[length];
                    random.NextBytes(data.AsSpan(0, Math.Clamp(real - offset, 0, length)));
                    await disk.WriteAsync(data, offset, RequestFlags.None, default);
                    data.CopyTo(model, offset);
                    break;
                case 2 when info.CanZero != Support.None:
                    await disk.ZeroAsync(offset, length, RequestFlags.MayTrim, default);
                    model.AsSpan(offset, length).Clear();
                    break;
                case 3 when info.CanCache != Support.None:
                    await disk.CacheAsync(offset, length, default);
                    break;
                case 4:
                    byte[] buffer = new byte[length];
                    buffer.AsSpan().Fill(0xEE);
                    var holes = new ExtentList(offset, offset + length);
                    await disk.ReadSparseAsync(buffer, offset, holes, default);
                    foreach (Extent hole in holes.Where(e => (e.Status & ExtentStatus.Zero) != 0))
                    {
                        buffer.AsSpan((int)(hole.Offset - offset), (int)hole.Length).Clear();
                    }
                    Assert.That(buffer, Is.EqualTo(model[offset..(offset + length)]), step);
                    break;
                default:
                    ExtentList extents = await disk.ExtentsFullAsync(offset, length, ExtentList.BaseAllocation, default);
                    foreach (Extent zero in extents.Where(e => (e.Status & ExtentStatus.Zero) != 0))
                    {
                        Assert.That(model.AsSpan((int)zero.Offset, (int)zero.Length).ContainsAnyExcept((byte)0), Is.False, step);
                    }
                    break;
            }
            Assert.That(plugin.Offence, Is.Null, step);
        }
        Assert.That(plugin.Data, Is.EqualTo(model[..real]));
    }

    [Test]
    public void Settings_out_of_range_are_refused_where_they_are_set()
    {
        Assert.That(() => new TruncateFilter { Size = -1 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new TruncateFilter { RoundUp = 0 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new TruncateFilter { RoundDown = 0 }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void The_entry_reads_its_parameters()
    {
        var filter = (TruncateFilter)TruncateFilter.Entry.Create(
            new NbdParameters("truncate", [new("truncate", "1M"), new("round-up", "4k"), new("round-down", "512")]));
        Assert.That((filter.Size, filter.RoundUp, filter.RoundDown), Is.EqualTo(((long?)1048576, (long?)4096, (long?)512)));
    }
}
