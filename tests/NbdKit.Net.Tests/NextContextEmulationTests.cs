using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>
/// What a layer only promised and <see cref="NextContext"/> carries out. The ids are those of the rules that nbdkit keeps
/// (nbdkit-plugin(3), nbdkit-filter(3)).
/// </summary>
[TestFixture(TestedLayer.Plugin)]
[TestFixture(TestedLayer.Filter)]
public sealed class NextContextEmulationTests(string kind)
{
    private static readonly CancellationToken None = CancellationToken.None;

    [Test, Property("Rule", "E1"), Property("Rule", "E14")]
    public async Task E1_E14_Emulated_FUA_is_the_operation_without_the_flag_and_then_one_flush()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with { CanFua = Support.Emulate });
        await layer.Disk.WriteAsync(new byte[4], 0, RequestFlags.Fua, None);
        await layer.Disk.TrimAsync(8, 4, RequestFlags.Fua, None);
        await layer.Disk.ZeroAsync(16, 4, RequestFlags.Fua | RequestFlags.MayTrim, None);
        await layer.Disk.WriteAsync(new byte[4], 32, RequestFlags.None, None);
        Assert.That(layer.Calls, Is.EqualTo(new[]
        {
            "write 0+4", "flush", "trim 8+4", "flush", "zero 16+4 MayTrim", "flush", "write 32+4",
        }));
    }

    [Test, Property("Rule", "E1")]
    public async Task E1_Emulated_FUA_flushes_even_if_the_layer_takes_no_flushes_of_its_clients()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(
            kind, info => info with { CanFua = Support.Emulate, CanFlush = false });
        await layer.Disk.WriteAsync(new byte[4], 0, RequestFlags.Fua, None);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "write 0+4", "flush" }));
    }

    [TestCase("write")]
    [TestCase("trim")]
    [TestCase("zero")]
    [Property("Rule", "E1")]
    public async Task E1_The_failure_of_that_flush_is_the_failure_of_the_operation(string operation)
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with { CanFua = Support.Emulate });
        layer.Script.Fail("flush", error: NbdError.NoSpace);
        Assert.That(async () => await RunAsync(layer, operation), Fails(NbdError.NoSpace));
        Assert.That(layer.Calls, Is.EqualTo(new[] { operation + " 0+4", "flush" }));
    }

    [TestCase("write")]
    [TestCase("trim")]
    [TestCase("zero")]
    [Property("Rule", "E11")]
    public async Task E11_The_failure_of_the_operation_wins_and_nothing_is_flushed_after_it(string operation)
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with { CanFua = Support.Emulate });
        layer.Script.Fail(operation, error: NbdError.OutOfMemory);
        Assert.That(async () => await RunAsync(layer, operation), Fails(NbdError.OutOfMemory));
        Assert.That(layer.Calls, Is.EqualTo(new[] { operation + " 0+4" }));
    }

    [Test, Property("Rule", "E3")]
    public async Task E3_A_native_zero_gets_the_flags_and_its_success_or_failure_is_final()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind);
        await layer.Disk.ZeroAsync(0, 8, RequestFlags.Fua | RequestFlags.MayTrim, None);
        layer.Script.Fail("zero", error: NbdError.IoError);
        Assert.That(async () => await layer.Disk.ZeroAsync(8, 8, RequestFlags.None, None), Fails(NbdError.IoError));
        Assert.That(layer.Calls, Is.EqualTo(new[] { "zero 0+8 Fua, MayTrim", "zero 8+8" }));
    }

    [TestCase(false)]
    [TestCase(true)]
    [Property("Rule", "E4")]
    public async Task E4_A_native_zero_that_declines_is_carried_out_by_writing(bool byRuntimeException)
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind);
        layer.PluginBelow.Data.AsSpan().Fill(0xff);
        layer.Script.Fail(
            "zero", _ => byRuntimeException ? new NotSupportedException() : new NbdException(NbdError.NotSupported, "not here"));
        await layer.Disk.ZeroAsync(3, 8, RequestFlags.MayTrim | RequestFlags.Fua, None);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "zero 3+8 Fua, MayTrim", "write 3+8 Fua" }));
        Assert.That(layer.PluginBelow.Data.AsSpan(2, 10).ToArray(), Is.EqualTo(new byte[] { 255, 0, 0, 0, 0, 0, 0, 0, 0, 255 }));
    }

    [Test, Property("Rule", "E4")]
    public async Task E4_A_fast_zero_that_declines_is_not_carried_out_by_writing()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind);
        layer.Script.Fail("zero", error: NbdError.NotSupported);
        Assert.That(
            async () => await layer.Disk.ZeroAsync(0, 8, RequestFlags.FastZero, None), Fails(NbdError.NotSupported));
        Assert.That(layer.Calls, Is.EqualTo(new[] { "zero 0+8 FastZero" }));
    }

    [Test, Property("Rule", "E4")]
    public async Task E4_Emulated_FUA_of_a_zero_by_writing_is_one_flush_at_the_end()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(
            kind, info => info with { CanFua = Support.Emulate, BlockSize = new BlockSize(1, 512, 1024) });
        layer.Script.Fail("zero", error: NbdError.NotSupported);
        await layer.Disk.ZeroAsync(1, 2500, RequestFlags.Fua, None);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "zero 1+2500", "write 1+1024", "write 1025+1024", "write 2049+452", "flush" }));
    }

    [Test, Property("Rule", "E4")]
    public async Task E4_A_write_that_fails_ends_a_zero_by_writing_and_is_its_failure()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(
            kind, info => info with { CanZero = Support.Emulate, CanFua = Support.Emulate, BlockSize = new BlockSize(1, 512, 512) });
        int writes = 0;
        layer.Script.Fail("write", _ => ++writes == 2 ? new NbdException(NbdError.NoSpace, "full") : null);
        Assert.That(async () => await layer.Disk.ZeroAsync(0, 2048, RequestFlags.Fua, None), Fails(NbdError.NoSpace));
        Assert.That(layer.Calls, Is.EqualTo(new[] { "write 0+512", "write 512+512" }));
    }

    [Test, Property("Rule", "E5")]
    public async Task E5_An_emulated_zero_never_reaches_the_layer_s_own()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with { CanZero = Support.Emulate });
        await layer.Disk.ZeroAsync(0, 8, RequestFlags.MayTrim, None);
        await layer.Disk.ZeroAsync(8, 8, RequestFlags.Fua, None);
        Assert.That(
            async () => await layer.Disk.ZeroAsync(16, 8, RequestFlags.FastZero, None), Fails(NbdError.NotSupported));
        Assert.That(layer.Calls, Is.EqualTo(new[] { "write 0+8", "write 8+8 Fua" }));
    }

    [Test, Property("Rule", "E5")]
    public async Task E5_An_emulated_zero_with_emulated_FUA_ends_in_one_flush()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(
            kind, info => info with { CanZero = Support.Emulate, CanFua = Support.Emulate, BlockSize = new BlockSize(1, 512, 512) });
        await layer.Disk.ZeroAsync(0, 1024, RequestFlags.Fua, None);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "write 0+512", "write 512+512", "flush" }));
    }

    [Test, Property("Rule", "E6")]
    public async Task E6_An_emulated_cache_reads_and_never_reaches_the_layer_s_own()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(
            kind, info => info with { CanCache = Support.Emulate, BlockSize = new BlockSize(1, 512, 4096) });
        await layer.Disk.CacheAsync(10, 9000, None);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "read 10+4096", "read 4106+4096", "read 8202+808" }));
        layer.Script.Fail("read");
        Assert.That(async () => await layer.Disk.CacheAsync(0, 1, None), Fails(NbdError.IoError));
    }

    [Test, Property("Rule", "E8")]
    public async Task E8_A_layer_without_extents_is_all_data_in_one_extent_and_is_not_asked()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with { CanExtents = false });
        var list = new ExtentList(5, 65_536);
        await layer.Disk.ExtentsAsync(5, 100, RequestFlags.None, list, None);
        Assert.That(list, Is.EqualTo(new[] { new Extent(5, 100, ExtentStatus.Data) }));
        Assert.That(layer.Calls, Is.Empty);
    }

    [Test, Property("Rule", "E9")]
    public async Task E9_A_layer_that_reports_no_extent_fails_with_EINVAL()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind);
        layer.PluginBelow.Extents = (_, _, _) => { };
        Assert.That(
            async () => await layer.Disk.ExtentsAsync(0, 10, RequestFlags.None, new ExtentList(0, 10), None),
            Fails(NbdError.InvalidArgument));
        // One that lies altogether before the window is none.
        layer.PluginBelow.Extents = (_, _, list) => list.Add(0, 10, ExtentStatus.Hole);
        Assert.That(
            async () => await layer.Disk.ExtentsAsync(10, 10, RequestFlags.None, new ExtentList(10, 20), None),
            Fails(NbdError.InvalidArgument));
    }

    private static async Task RunAsync(TestedLayer layer, string operation)
    {
        ValueTask call = operation switch
        {
            "write" => layer.Disk.WriteAsync(new byte[4], 0, RequestFlags.Fua, None),
            "trim" => layer.Disk.TrimAsync(0, 4, RequestFlags.Fua, None),
            _ => layer.Disk.ZeroAsync(0, 4, RequestFlags.Fua, None),
        };
        await call;
    }

    private static NUnit.Framework.Constraints.IResolveConstraint Fails(NbdError error)
        => Throws.InstanceOf<NbdException>().With.Property(nameof(NbdException.Error)).EqualTo(error);
}
