using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class SpinningFilterTests
{
    private const long Size = 1L << 30;

    private static readonly CancellationToken None = CancellationToken.None;

    private readonly FakeTimeProvider _time = new();

    [TestCase(0, 0)]
    [TestCase(131_072, 0)]
    [TestCase(Size / 2, 200)]
    [TestCase(Size - 512, 500)]
    [TestCase(Size / 4, 91.25)]
    public async Task A_move_takes_as_long_as_its_distance(long to, double milliseconds)
    {
        await using NbdBackend chain = Compose(new SpinningFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TimeAsync(disk, to), Is.EqualTo(milliseconds).Within(1));
        Assert.That(await TimeAsync(disk, to), Is.Zero, "it is there already");
        Assert.That(await TimeAsync(disk, 0), Is.EqualTo(milliseconds).Within(1), "and back");
    }

    [Test]
    public async Task A_move_of_little_more_than_a_track_takes_the_least_time()
    {
        await using NbdBackend chain = Compose(new SpinningFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TimeAsync(disk, 131_073), Is.EqualTo(10).Within(1));
    }

    [Test]
    public async Task Moves_of_one_arm_come_one_after_the_other_over_all_clients()
    {
        await using NbdBackend chain = Compose(new SpinningFilter { TimeProvider = _time });
        await using NextContext one = await chain.OpenAsync();
        await using NextContext two = await chain.OpenAsync();
        Task first = one.ReadAsync(new byte[1], Size / 2, None).AsTask();
        Task second = two.ReadAsync(new byte[1], 0, None).AsTask();
        Task third = one.ReadAsync(new byte[1], 512, None).AsTask();
        _time.Advance(TimeSpan.FromMilliseconds(199));
        Assert.That(first.IsCompleted, Is.False);
        _time.Advance(TimeSpan.FromMilliseconds(2));
        await first.Soon();
        _time.Advance(TimeSpan.FromMilliseconds(198));
        Assert.That((second.IsCompleted, third.IsCompleted), Is.EqualTo((false, false)), "the third moves nothing, but has to wait");
        _time.Advance(TimeSpan.FromMilliseconds(2));
        await Task.WhenAll(second, third).Soon();
        Assert.That((one.Info.IsRotational, one.Info.CanMultiConn), Is.EqualTo((true, true)));
    }

    [Test]
    public async Task Heads_rest_when_nobody_has_the_export_open()
    {
        await using NbdBackend chain = Compose(new SpinningFilter { TimeProvider = _time });
        await using (NextContext one = await chain.OpenAsync("made up"))
        {
            await using (NextContext two = await chain.OpenAsync("made up"))
            {
                Assert.That(await TimeAsync(two, Size / 2), Is.EqualTo(200).Within(1));
            }
            Assert.That(await TimeAsync(one, Size / 2), Is.Zero, "somebody has it open still");
        }
        // Nothing is kept of a name that a client has thought of.
        await using NextContext again = await chain.OpenAsync("made up");
        Assert.That(await TimeAsync(again, 0), Is.Zero);
        Assert.That(await TimeAsync(again, Size / 2), Is.EqualTo(200).Within(1));
    }

    [Test]
    public async Task Heads_divide_the_disk_and_move_together_or_apart([Values] bool separate)
    {
        await using NbdBackend chain = Compose(new SpinningFilter { Heads = 2, SeparateHeads = separate, TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        // The other head is at the beginning of its half.
        Assert.That(await TimeAsync(disk, Size / 2), Is.Zero);
        Assert.That(await TimeAsync(disk, Size / 4), Is.EqualTo(200).Within(1), "half of the range of the first");
        Assert.That(await TimeAsync(disk, Size * 3 / 4), Is.EqualTo(separate ? 200 : 0).Within(1));
        Assert.That(await TimeAsync(disk, Size / 2), Is.EqualTo(200).Within(1));
        Assert.That(await TimeAsync(disk, Size / 4), Is.EqualTo(separate ? 0 : 200).Within(1));
    }

    [Test]
    public async Task Exports_have_heads_of_their_own_and_only_reads_writes_and_zeroes_move_them()
    {
        await using NbdBackend chain = Compose(new SpinningFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync("one");
        await using NextContext other = await chain.OpenAsync("two");
        Assert.That(await TimeAsync(disk, Size / 2), Is.EqualTo(200).Within(1));
        Assert.That(await TimeAsync(other, 0), Is.Zero);
        await disk.TrimAsync(0, 512, RequestFlags.None, None);
        await disk.CacheAsync(0, 512, None);
        await disk.FlushAsync(None);
        await disk.ExtentsAsync(0, 512, RequestFlags.None, new ExtentList(0, 512), None);
        Assert.That(await TimeAsync(disk, Size / 2), Is.Zero);
        double began = Now;
        await _time.AdvanceUntilAsync(disk.WriteAsync(new byte[1], 0, RequestFlags.None, None).AsTask());
        Assert.That(Now - began, Is.GreaterThan(0));
        began = Now;
        await _time.AdvanceUntilAsync(disk.ZeroAsync(Size / 2, 512, RequestFlags.None, None).AsTask());
        Assert.That(Now - began, Is.GreaterThan(0));
    }

    [Test]
    public async Task A_request_whose_client_leaves_is_given_up()
    {
        await using NbdBackend chain = Compose(new SpinningFilter { TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        using var gone = new CancellationTokenSource();
        Task read = disk.ReadAsync(new byte[1], Size / 2, gone.Token).AsTask();
        await gone.CancelAsync();
        Assert.That(TestData.Failure(() => read).Error, Is.EqualTo(NbdError.Shutdown));
    }

    [TestCase(0, 0)]
    [TestCase(3, 64)]
    [TestCase(1, 2)]
    public async Task Small_disks_have_fewer_heads(int size, int heads)
    {
        await using NbdBackend chain = NbdBackend.Compose(
            new MemoryPlugin { Size = size }, new SpinningFilter { Heads = Math.Max(heads, 1), TimeProvider = _time });
        await using NextContext disk = await chain.OpenAsync();
        for (int i = 0; i < size; i++)
        {
            Assert.That(await TimeAsync(disk, i), Is.Zero);
        }
    }

    [Test]
    public async Task A_curve_that_dips_below_zero_means_no_time()
    {
        await using NbdBackend chain = Compose(new SpinningFilter
        {
            MinSeekTime = TimeSpan.FromSeconds(1),
            HalfSeekTime = TimeSpan.Zero,
            MaxSeekTime = TimeSpan.FromSeconds(1),
            TimeProvider = _time,
        });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(await TimeAsync(disk, Size / 2), Is.EqualTo(0).Within(1));
    }

    [Test]
    public void Wrong_settings_are_refused()
    {
        Assert.That(() => new SpinningFilter { Heads = 0 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new SpinningFilter { Heads = 65 }, Throws.InstanceOf<ArgumentOutOfRangeException>());
        Assert.That(() => new SpinningFilter { MinSeekTime = TimeSpan.FromSeconds(-1) }, Throws.InstanceOf<ArgumentOutOfRangeException>());
    }

    private double Now => TimeSpan.FromTicks(_time.GetTimestamp()).TotalMilliseconds;

    private static NbdBackend Compose(SpinningFilter filter) => NbdBackend.Compose(new MemoryPlugin { Size = Size }, filter);

    /// <summary>How long a read takes, in milliseconds.</summary>
    private async Task<double> TimeAsync(NextContext disk, long offset)
    {
        double began = Now;
        Task read = disk.ReadAsync(new byte[1], offset, None).AsTask();
        if (!read.IsCompleted)
        {
            _time.Advance(_time.NextTimer!.Value);
        }
        await read.Soon();
        return Now - began;
    }
}
