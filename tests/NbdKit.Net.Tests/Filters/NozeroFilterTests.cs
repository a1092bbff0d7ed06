using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class NozeroFilterTests
{
    private const RequestFlags Fast = RequestFlags.FastZero | RequestFlags.MayTrim;

    private static readonly byte[] Ones = [.. Enumerable.Repeat((byte)1, 4096)];

    private static NbdBackend Chain(ModelPlugin plugin, ZeroMode mode, FastZeroMode fast = FastZeroMode.Default)
        => NbdBackend.Compose(plugin, new NozeroFilter { Mode = mode, FastMode = fast });

    private static ModelPlugin Plugin(Support zero = Support.Native, bool fast = true)
        => new(Ones, ModelPlugin.Everything with { CanZero = zero, CanFastZero = fast });

    [TestCase(ZeroMode.None, FastZeroMode.Default, Support.None, false)]
    [TestCase(ZeroMode.None, FastZeroMode.Ignore, Support.None, false)]
    [TestCase(ZeroMode.Emulate, FastZeroMode.Default, Support.Emulate, true)]
    [TestCase(ZeroMode.Emulate, FastZeroMode.None, Support.Emulate, false)]
    [TestCase(ZeroMode.Emulate, FastZeroMode.Slow, Support.Emulate, true)]
    [TestCase(ZeroMode.Emulate, FastZeroMode.Ignore, Support.Native, true)]
    [TestCase(ZeroMode.Notrim, FastZeroMode.Default, Support.Native, false)]
    [TestCase(ZeroMode.Notrim, FastZeroMode.None, Support.Native, false)]
    [TestCase(ZeroMode.Plugin, FastZeroMode.Slow, Support.Native, true)]
    [TestCase(ZeroMode.Plugin, FastZeroMode.Ignore, Support.Native, true)]
    public async Task Each_pair_of_modes_offers_what_it_says(ZeroMode mode, FastZeroMode fast, Support zero, bool canFast)
    {
        await using NbdBackend chain = Chain(Plugin(fast: false), mode, fast);
        await using NextContext disk = await chain.OpenAsync();
        Assert.That((disk.Info.CanZero, disk.Info.CanFastZero), Is.EqualTo((zero, canFast)));
    }

    [TestCase(ZeroMode.None)]
    [TestCase(ZeroMode.Emulate)]
    public async Task A_read_only_open_is_not_changed(ZeroMode mode)
    {
        await using NbdBackend chain = Chain(Plugin(), mode, FastZeroMode.Ignore);
        await using NextContext disk = await chain.OpenAsync(readOnly: true);
        Assert.That((disk.Info.CanZero, disk.Info.CanFastZero), Is.EqualTo((Support.None, false)));
    }

    [Test]
    public async Task Emulate_writes_zeroes_and_refuses_fast_ones()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin, ZeroMode.Emulate);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(10, 100, RequestFlags.MayTrim | RequestFlags.Fua, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "write 10+100 Fua" }));
        Assert.That(plugin.Data.AsSpan(10, 100).ContainsAnyExcept((byte)0), Is.False);
        NbdException e = TestData.Failure(async () => await disk.ZeroAsync(200, 100, Fast, default));
        Assert.That(e.Error, Is.EqualTo(NbdError.NotSupported));
        Assert.That(plugin.TakeCalls(), Is.Empty);
    }

    [Test]
    public async Task Notrim_hides_that_the_space_may_be_given_up()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin, ZeroMode.Notrim);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 16, RequestFlags.MayTrim | RequestFlags.Fua, default);
        await disk.ZeroAsync(16, 16, Fast, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "zero 0+16 Fua", "zero 16+16 FastZero" }));
    }

    [Test]
    public async Task Plugin_passes_everything_on()
    {
        ModelPlugin plugin = Plugin();
        await using NbdBackend chain = Chain(plugin, ZeroMode.Plugin);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 16, Fast, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "zero 0+16 MayTrim, FastZero" }));
    }

    [TestCase(ZeroMode.Plugin, Support.Native)]
    [TestCase(ZeroMode.Plugin, Support.Emulate)]
    [TestCase(ZeroMode.Notrim, Support.Native)]
    [TestCase(ZeroMode.Emulate, Support.Native)]
    public async Task Slow_refuses_every_fast_zero_at_once(ZeroMode mode, Support zero)
    {
        ModelPlugin plugin = Plugin(zero, fast: false);
        await using NbdBackend chain = Chain(plugin, mode, FastZeroMode.Slow);
        await using NextContext disk = await chain.OpenAsync();
        NbdException e = TestData.Failure(async () => await disk.ZeroAsync(0, 16, Fast, default));
        Assert.That(e.Error, Is.EqualTo(NbdError.NotSupported));
        Assert.That(plugin.TakeCalls(), Is.Empty);
        await disk.ZeroAsync(0, 16, RequestFlags.None, default);
        Assert.That(plugin.TakeCalls(), Has.Length.EqualTo(1));
    }

    [TestCase(ZeroMode.Plugin, Support.Native, "zero 0+16 MayTrim")]
    [TestCase(ZeroMode.Notrim, Support.Native, "zero 0+16")]
    [TestCase(ZeroMode.Plugin, Support.Emulate, "write 0+16")]
    [TestCase(ZeroMode.Emulate, Support.Native, "write 0+16")]
    public async Task Ignore_treats_a_fast_zero_as_any_other(ZeroMode mode, Support zero, string call)
    {
        ModelPlugin plugin = Plugin(zero, fast: false);
        await using NbdBackend chain = Chain(plugin, mode, FastZeroMode.Ignore);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 16, Fast, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { call }));
        Assert.That(plugin.Data.AsSpan(0, 16).ContainsAnyExcept((byte)0), Is.False);
    }

    [Test]
    public async Task Zeroes_that_are_written_heed_the_largest_request_of_the_layer_below()
    {
        var plugin = new ModelPlugin(
            [.. Ones, .. Ones], ModelPlugin.Everything with { BlockSize = new BlockSize(512, 1024, 1536) });
        await using NbdBackend chain = Chain(plugin, ZeroMode.Emulate, FastZeroMode.Ignore);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(512, 4096, RequestFlags.Fua | RequestFlags.FastZero, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "write 512+1536 Fua", "write 2048+1536 Fua", "write 3584+1024 Fua" }));
    }

    [TestCase(ZeroMode.Notrim)]
    [TestCase(ZeroMode.Plugin)]
    public async Task Passing_zeroes_on_needs_a_layer_that_takes_them(ZeroMode mode)
    {
        await using NbdBackend chain = Chain(Plugin(Support.None), mode);
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.Contain($"zeromode={mode.ToString().ToLowerInvariant()}"));
        await using NextContext readOnly = await chain.OpenAsync(readOnly: true);
        Assert.That(readOnly.Info.CanZero, Is.EqualTo(Support.None));
    }

    [Test]
    public async Task Emulate_gives_zeroes_to_a_layer_that_has_none()
    {
        ModelPlugin plugin = Plugin(Support.None);
        await using NbdBackend chain = Chain(plugin, ZeroMode.Emulate);
        await using NextContext disk = await chain.OpenAsync();
        await disk.ZeroAsync(0, 16, RequestFlags.None, default);
        Assert.That(plugin.TakeCalls(), Is.EqualTo(new[] { "write 0+16" }));
    }

    [Test]
    public void The_entry_knows_every_mode()
    {
        static (ZeroMode, FastZeroMode) Read(params KeyValuePair<string, string>[] parameters)
        {
            var filter = (NozeroFilter)NozeroFilter.Entry.Create(new NbdParameters("nozero", parameters));
            return (filter.Mode, filter.FastMode);
        }

        Assert.That(Read(), Is.EqualTo((ZeroMode.None, FastZeroMode.Default)));
        Assert.That(Read(new("zeromode", "none"), new("fastzeromode", "default")), Is.EqualTo((ZeroMode.None, FastZeroMode.Default)));
        Assert.That(Read(new("zeromode", "emulate"), new("fastzeromode", "none")), Is.EqualTo((ZeroMode.Emulate, FastZeroMode.None)));
        Assert.That(Read(new("zeromode", "notrim"), new("fastzeromode", "slow")), Is.EqualTo((ZeroMode.Notrim, FastZeroMode.Slow)));
        Assert.That(Read(new("zeromode", "plugin"), new("fastzeromode", "ignore")), Is.EqualTo((ZeroMode.Plugin, FastZeroMode.Ignore)));
        Assert.That(() => Read(new KeyValuePair<string, string>("zeromode", "x")), Throws.ArgumentException);
        Assert.That(() => new NozeroFilter { Mode = (ZeroMode)9 }, Throws.TypeOf<ArgumentOutOfRangeException>());
        Assert.That(() => new NozeroFilter { FastMode = (FastZeroMode)(-1) }, Throws.TypeOf<ArgumentOutOfRangeException>());
    }
}
