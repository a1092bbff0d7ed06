using System.Globalization;
using System.Text;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public sealed class DdrescueFilterTests
{
    private const string Map = """
        # Mapfile. Created by GNU ddrescue version 1.23
        # current_pos  current_status  current_pass
        0x00002000     +               1
        #      pos        size  status
        0x00000000  0x00001000  +
        0x00001000  0x00000400  +
        0x00001400  0x00000200  -
        0x00001600  0x00000A00  *
        0x00002000  0x00002000  +   # the rest

        """;

    [TestCase(0, 5120, true)]
    [TestCase(4095, 2, true)]
    [TestCase(5119, 2, false)]
    [TestCase(5120, 1, false)]
    [TestCase(8191, 1, false)]
    [TestCase(8192, 8192, true)]
    [TestCase(0, 16_384, false)]
    [TestCase(16_384, 1, false)]
    [TestCase(16_383, 2, false)]
    public async Task What_was_rescued_can_be_read_and_what_was_not_fails(long offset, int length, bool good)
    {
        byte[] content = TestData.Random(20_000);
        await using NbdBackend chain = Compose(content, Map);
        await using NextContext disk = await chain.OpenAsync();
        if (good)
        {
            Assert.That(await TestData.ReadAsync(disk, offset, length), Is.EqualTo(content.AsSpan((int)offset, length).ToArray()));
        }
        else
        {
            Assert.That(TestData.Failure(() => TestData.ReadAsync(disk, offset, length)).Error, Is.EqualTo(NbdError.IoError));
            Assert.That(
                TestData.Failure(() => disk.ReadSparseAsync(new byte[length], offset, new ExtentList(offset, offset + length), default).AsTask()).Error,
                Is.EqualTo(NbdError.IoError));
        }
    }

    [Test]
    public async Task It_is_read_only_and_opens_the_layer_below_so()
    {
        var plugin = new ModelPlugin(new byte[16_384]);
        await using NbdBackend chain = Compose(plugin, Map);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.CanWrite, Is.False);
        Assert.That(plugin.Opens.Select(open => open.ReadOnly), Is.EqualTo(new[] { true }));
        await disk.CacheAsync(0, 16_384, default);
    }

    [Test]
    public async Task Random_maps_hold_for_reads_and_extents([Values] Support sparse)
    {
        int seed = TestContext.CurrentContext.Random.Next();
        TestContext.Out.WriteLine($"seed {seed}");
        var random = new Random(seed);
        for (int run = 0; run < 20; run++)
        {
            byte[] content = TestData.Random(10_000, run);
            content.AsSpan(2000, 3000).Clear();
            var good = new bool[content.Length];
            var map = new StringBuilder("0 ? 1\n");
            for (int at = random.Next(100); at < content.Length;)
            {
                int length = Math.Min(random.Next(1, 2000), content.Length - at);
                char status = "?*/-+++++"[random.Next(9)];
                map.Append(CultureInfo.InvariantCulture, $"0x{at:x} {length} {status}\n");
                good.AsSpan(at, length).Fill(status == '+');
                at += length + (random.Next(4) == 0 ? random.Next(300) : 0);
            }
            await using NbdBackend chain = Compose(
                new ModelPlugin(content, ModelPlugin.Everything with { CanReadSparse = sparse }, random), map.ToString());
            await using NextContext disk = await chain.OpenAsync();
            for (int i = 0; i < 100; i++)
            {
                int offset = random.Next(content.Length);
                int length = random.Next(1, Math.Min(content.Length - offset, 1500) + 1);
                var extents = new ExtentList(offset, content.Length);
                await disk.ExtentsAsync(offset, length, RequestFlags.None, extents, default);
                Assert.That(extents.Count, Is.GreaterThan(0));
                foreach (Extent extent in extents.Where(e => (e.Status & ExtentStatus.Zero) != 0))
                {
                    Assert.That(good.AsSpan((int)extent.Offset, (int)extent.Length).Contains(false), Is.False, $"{extent} is a hole");
                    Assert.That(content.AsSpan((int)extent.Offset, (int)extent.Length).IndexOfAnyExcept((byte)0), Is.EqualTo(-1));
                }
                bool readable = !good.AsSpan(offset, length).Contains(false);
                byte[] buffer = new byte[length];
                var holes = new ExtentList(offset, offset + length);
                Task read = disk.ReadSparseAsync(buffer, offset, holes, default).AsTask();
                if (!readable)
                {
                    Assert.That(TestData.Failure(() => read).Error, Is.EqualTo(NbdError.IoError), $"{length} at {offset}");
                    continue;
                }
                await read;
                foreach (Extent hole in holes.Where(e => (e.Status & ExtentStatus.Zero) != 0))
                {
                    buffer.AsSpan((int)(hole.Offset - offset), (int)hole.Length).Clear();
                }
                Assert.That(buffer.AsSpan().SequenceEqual(content.AsSpan(offset, length)), $"{length} at {offset}");
            }
        }
    }

    [TestCase("", "There is no status line.")]
    [TestCase("# only a comment\n", "There is no status line.")]
    [TestCase("0x0 0x10 +\n", "Line 1 is not the status of a map.")]
    [TestCase("0 + 1\n0 16\n", "Line 2 is not of the form")]
    [TestCase("0 + 1\n0 16 x\n", "Line 2 is not of the form")]
    [TestCase("0 + 1\n0 16 ++\n", "Line 2 is not of the form")]
    [TestCase("0 + 1\n0 16 + 5\n", "Line 2 is not of the form")]
    [TestCase("0 + 1\n0 16 +\n8 16 +\n", "Line 3 begins before the range above it ends.")]
    [TestCase("0 + 1\n-1 16 +\n", "Line 2: '-1' is not between")]
    [TestCase("0 + 1\n0x7fffffffffffffff 1 +\n", "Line 2 ends beyond 2^63-1.")]
    [TestCase("0 + 1\n0 0x8000000000000000 +\n", "Line 2: ")]
    [TestCase("0 + 1\n0 99999999999999999999999999999999999999999999999999999999999999999999 +\n", "Line 2: ")]
    [TestCase("0 + 1\n0 16 +                LONG\n", "Line 2 is too long.")]
    [TestCase("\0\0\0\0", "Line 1 is not the status of a map.")]
    public async Task A_file_that_is_no_map_ends_the_start(string map, string message)
    {
        NbdBackend chain = Compose(new byte[16], map.Replace("LONG", string.Concat(Enumerable.Repeat("a ", 100_000)), StringComparison.Ordinal));
        Assert.That(async () => await chain.StartAsync(), Throws.InstanceOf<FormatException>().With.Message.Contains(message));
        await chain.DisposeAsync();
    }

    [Test]
    public async Task A_map_of_the_whole_range_of_numbers_is_taken_and_an_empty_one_means_that_nothing_is_good()
    {
        await using (NbdBackend chain = Compose(new byte[16], "0 + 1\n0 0x7fffffffffffffff +\n"))
        {
            await using NextContext disk = await chain.OpenAsync();
            await TestData.ReadAsync(disk, 0, 16);
        }
        await using (NbdBackend chain = Compose(new byte[16], "0 ?\n"))
        {
            await using NextContext disk = await chain.OpenAsync();
            Assert.That(TestData.Failure(() => TestData.ReadAsync(disk, 0, 1)).Error, Is.EqualTo(NbdError.IoError));
        }
    }

    [Test]
    public void A_map_that_is_not_there_or_not_a_file_ends_the_start()
    {
        Assert.That(
            async () => await NbdBackend.Compose(new ModelPlugin([]), new DdrescueFilter { MapFile = "/nonexistent/map" }).StartAsync(),
            Throws.InstanceOf<IOException>());
        Assert.That(
            async () => await NbdBackend.Compose(new ModelPlugin([]), new DdrescueFilter { MapFile = "/dev/zero" }).StartAsync(),
            Throws.InstanceOf<FormatException>());
        Assert.That(() => new DdrescueFilter { MapFile = "" }, Throws.ArgumentException);
    }

    private static NbdBackend Compose(byte[] content, string map) => Compose(new ModelPlugin(content), map);

    private static NbdBackend Compose(ModelPlugin plugin, string map)
    {
        var folder = new ScratchDirectory();
        string path = folder.Write("map", Encoding.UTF8.GetBytes(map));
        // With the filter goes its map.
        return NbdBackend.Compose(plugin, new HookFilter(new Hooks { Dispose = folder.Dispose }), new DdrescueFilter { MapFile = path });
    }
}
