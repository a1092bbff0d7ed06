using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class BlockSizePolicyFilterTests
{
    private static async Task<NextContext> OpenAsync(ModelPlugin plugin, BlockSizePolicyFilter filter)
        => await NbdBackend.Compose(plugin, filter).OpenAsync();

    private static ModelPlugin Plugin(BlockSize blockSize = default)
        => new(TestData.Random(10_000), ModelPlugin.Everything with { BlockSize = blockSize });

    [Test]
    public async Task Zeroes_that_are_emulated_are_no_writes_of_the_clients()
    {
        var plugin = new ModelPlugin(
            TestData.Random(1 << 20),
            ModelPlugin.Everything with { CanZero = Support.Emulate, CanCache = Support.Emulate, BlockSize = new BlockSize(512, 4096, 65_536) });
        await using NextContext disk = await OpenAsync(
            plugin, new BlockSizePolicyFilter { Maximum = 32 << 20, WriteDisconnect = 4096 });
        await disk.ZeroAsync(0, 1 << 20, RequestFlags.None, default);
        await disk.CacheAsync(0, 1 << 20, default);
        Assert.That(plugin.Data, Is.All.Zero);
        Assert.That(plugin.Offence, Is.Null);
    }

    [TestCase(null, null, null, 0, 0, 0)]
    [TestCase(512L, null, null, 512, 4096, BlockSize.Unlimited)]
    [TestCase(65_536L, null, null, 65_536, 65_536, BlockSize.Unlimited)]
    [TestCase(null, 32_768L, null, 1, 32_768, BlockSize.Unlimited)]
    [TestCase(null, null, 3000L, 1, 2048, 3000)]
    [TestCase(null, null, 2048L, 1, 2048, 2048)]
    public async Task What_is_not_set_has_the_usual_value(
        long? minimum, long? preferred, long? maximum, long first, long second, long third)
    {
        await using NextContext disk = await OpenAsync(
            Plugin(), new BlockSizePolicyFilter { Minimum = minimum, Preferred = preferred, Maximum = maximum });
        BlockSize sizes = disk.Info.BlockSize;
        Assert.That((sizes.Minimum, sizes.Preferred, sizes.Maximum), Is.EqualTo((first, second, third)));
    }

    [Test]
    public async Task What_is_not_set_comes_from_the_layer_below()
    {
        await using NextContext disk = await OpenAsync(
            Plugin(new BlockSize(512, 8192, 65_536)), new BlockSizePolicyFilter { Preferred = 16_384 });
        Assert.That(disk.Info.BlockSize, Is.EqualTo(new BlockSize(512, 16_384, 65_536)));
    }

    // nbdkit compares the maximum with itself here.
    [TestCase(4096L, null, 6000L)]
    [TestCase(null, 8192L, 4096L)]
    [TestCase(4096L, 512L, null)]
    public void Sizes_that_do_not_go_together_fail_the_open(long? minimum, long? preferred, long? maximum)
    {
        NbdException e = TestData.Failure(async () => await OpenAsync(
            Plugin(), new BlockSizePolicyFilter { Minimum = minimum, Preferred = preferred, Maximum = maximum }));
        Assert.That((e.Error, e.Message), Is.EqualTo((NbdError.InvalidArgument, e.Message)));
        Assert.That(e.Message, Does.Contain("do not go together"));
    }

    [TestCase(BlockSizeErrorPolicy.Allow, true, true)]
    [TestCase(BlockSizeErrorPolicy.Error, false, true)]
    [TestCase(BlockSizeErrorPolicy.StrictError, false, false)]
    public async Task The_policy_says_what_is_passed_on(BlockSizeErrorPolicy policy, bool unaligned, bool tail)
    {
        var plugin = Plugin();
        await using NextContext disk = await OpenAsync(
            plugin, new BlockSizePolicyFilter { Minimum = 512, Maximum = 4096, ErrorPolicy = policy });
        async Task CheckAsync(Func<Task> request, bool passes)
        {
            if (passes)
            {
                await request();
                Assert.That(plugin.TakeCalls(), Has.Length.EqualTo(1));
            }
            else
            {
                Assert.That(TestData.Failure(request).Error, Is.EqualTo(NbdError.InvalidArgument));
                Assert.That(plugin.TakeCalls(), Is.Empty);
            }
        }
        await CheckAsync(async () => await TestData.ReadAsync(disk, 512, 512), true);
        await CheckAsync(async () => await TestData.ReadAsync(disk, 1, 512), unaligned);
        await CheckAsync(async () => await TestData.ReadAsync(disk, 0, 511), unaligned);
        await CheckAsync(async () => await TestData.ReadAsync(disk, 0, 4608), unaligned);
        await CheckAsync(async () => await TestData.ReadAsync(disk, 9728, 272), tail);
        await CheckAsync(async () => await disk.WriteAsync(new byte[8192], 0, RequestFlags.None, default), unaligned);
        await CheckAsync(async () => await disk.WriteAsync(new byte[5], 0, RequestFlags.None, default), unaligned);
        await CheckAsync(async () => await disk.TrimAsync(3, 512, RequestFlags.None, default), unaligned);
        await CheckAsync(async () => await disk.ZeroAsync(0, 3, RequestFlags.None, default), unaligned);
        await CheckAsync(async () => await disk.ZeroAsync(0, 8192, RequestFlags.None, default), true);
        await CheckAsync(async () => await disk.CacheAsync(5, 512, default), unaligned);
        await CheckAsync(async () => await disk.ExtentsFullAsync(0, 600, ExtentList.BaseAllocation, default), unaligned);
    }

    // Answers of the layer below end where it likes, and the rest is asked for from there.
    [Test]
    public async Task Extents_of_the_layer_below_may_end_inside_blocks([Values] BlockSizeErrorPolicy policy)
    {
        const int Seed = 7;
        byte[] content = TestData.Random(98_304, Seed);
        content.AsSpan(10_240, 30_720).Clear();
        var plugin = new ModelPlugin(content, ModelPlugin.Everything, new Random(Seed));
        await using NextContext disk = await OpenAsync(
            plugin, new BlockSizePolicyFilter { Minimum = 4096, ErrorPolicy = policy });
        for (int i = 0; i < 50; i++)
        {
            ExtentList extents = await disk.ExtentsFullAsync(0, content.Length, ExtentList.BaseAllocation, default);
            Assert.That(extents.Covered, Is.EqualTo(content.Length), $"seed {Seed}: #{i}");
            foreach (Extent zero in extents.Where(e => (e.Status & ExtentStatus.Zero) != 0))
            {
                Assert.That(zero.Offset % 4096 + zero.Length % 4096, Is.Zero, $"seed {Seed}: #{i} {zero}");
                Assert.That(content.AsSpan((int)zero.Offset, (int)zero.Length).ContainsAnyExcept((byte)0), Is.False);
            }
        }
        Assert.That(plugin.Offence, Is.Null);
    }

    // The server rounds what a client asks, and its answer must not fail for that.
    [Test]
    public async Task Extents_up_to_an_odd_end_are_known_under_every_policy([Values] BlockSizeErrorPolicy policy)
    {
        await using NextContext disk = await OpenAsync(Plugin(), new BlockSizePolicyFilter { Minimum = 512, ErrorPolicy = policy });
        var extents = new ExtentList(0, 10_000);
        await disk.ExtentsAlignedAsync(0, 9728, 512, extents, default);
        Assert.That(extents.Covered, Is.EqualTo(10_000));
    }

    [Test]
    public async Task Larger_limits_than_those_of_the_layer_below_do_not_reach_it([Values] BlockSizeErrorPolicy policy)
    {
        var plugin = Plugin(new BlockSize(512, 4096, 8192));
        await using NextContext disk = await OpenAsync(
            plugin, new BlockSizePolicyFilter { Minimum = 1, Maximum = 65_536, ErrorPolicy = policy });
        foreach ((int offset, int length) in new[] { (1, 512), (0, 100), (0, 9216) })
        {
            NbdException e = TestData.Failure(async () => await TestData.ReadAsync(disk, offset, length));
            Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        }
        Assert.That((plugin.Offence, plugin.TakeCalls().Length), Is.EqualTo(((string?)null, 0)));
    }

    [Test]
    public async Task What_the_layer_below_cannot_take_is_refused_even_if_all_is_allowed()
    {
        var plugin = Plugin(new BlockSize(512, 4096, 8192));
        await using NextContext disk = await OpenAsync(plugin, new BlockSizePolicyFilter { Minimum = 4096 });
        await TestData.ReadAsync(disk, 512, 512);
        Assert.That(
            TestData.Failure(async () => await TestData.ReadAsync(disk, 1, 512)).Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(
            TestData.Failure(async () => await TestData.ReadAsync(disk, 0, 8704)).Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(plugin.Offence, Is.Null);
    }

    [TestCase(BlockSizeErrorPolicy.Allow, 0u)]
    [TestCase(BlockSizeErrorPolicy.Error, 22u)]
    public async Task The_server_leaves_it_to_the_policy(BlockSizeErrorPolicy policy, uint error)
    {
        await using ChainServer server = await ChainServer.StartAsync(
            NbdBackend.Compose(Plugin(), new BlockSizePolicyFilter { Minimum = 4096, ErrorPolicy = policy }));
        WireClient client = await server.TransmitAsync();
        Assert.That((await client.CallAsync(Cmd.Read, 1, 100)).Error, Is.EqualTo(error));
    }

    [Test]
    public async Task A_write_that_is_too_large_ends_the_connection()
    {
        var filter = new BlockSizePolicyFilter { WriteDisconnect = 1000 };
        await using (NextContext disk = await OpenAsync(Plugin(), filter))
        {
            await disk.WriteAsync(new byte[1000], 0, RequestFlags.None, default);
            NbdException e = TestData.Failure(async () => await disk.WriteAsync(new byte[1001], 0, RequestFlags.None, default));
            Assert.That(e.Error, Is.EqualTo(NbdError.Shutdown));
        }
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(Plugin(), new BlockSizePolicyFilter { WriteDisconnect = 1000 }), lenient: true);
        await using NbdClient client = await NbdClient.ConnectAsync(server.Uri);
        await client.WriteAsync(new byte[1000], 0);
        Assert.That(async () => await client.WriteAsync(new byte[1001], 0), Throws.InstanceOf<Exception>());
        Assert.That(async () => await client.ReadAsync(new byte[1], 0), Throws.InstanceOf<Exception>());
    }

    [Test]
    public void Sizes_out_of_range_are_refused_where_they_are_set()
    {
        Assert.That(() => new BlockSizePolicyFilter { Minimum = 3 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new BlockSizePolicyFilter { Minimum = 131_072 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new BlockSizePolicyFilter { Preferred = 256 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new BlockSizePolicyFilter { Maximum = 1L << 32 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new BlockSizePolicyFilter { WriteDisconnect = 0 }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }

    [Test]
    public void The_entry_reads_its_parameters()
    {
        var filter = (BlockSizePolicyFilter)BlockSizePolicyFilter.Entry.Create(new NbdParameters("blocksize-policy",
        [
            new("blocksize-minimum", "512"), new("blocksize-preferred", "4k"), new("blocksize-maximum", "1M"),
            new("blocksize-error-policy", "strict-error"), new("blocksize-write-disconnect", "0"),
        ]));
        Assert.That(
            (filter.Minimum, filter.Preferred, filter.Maximum, filter.ErrorPolicy, filter.WriteDisconnect),
            Is.EqualTo(((long?)512, (long?)4096, (long?)1_048_576, BlockSizeErrorPolicy.StrictError, (long?)null)));
    }
}
