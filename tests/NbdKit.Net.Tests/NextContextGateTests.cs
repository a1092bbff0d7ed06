using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>What a layer says it can do, after the gates: what is read-only promises nothing that writes.</summary>
[TestFixture(TestedLayer.Plugin)]
[TestFixture(TestedLayer.Filter)]
public sealed class NextContextGateTests(string kind)
{
    [Test]
    public async Task A_context_opened_read_only_cannot_write_trim_zero_or_promise_FUA()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with { CanWrite = true }, readOnly: true);
        NbdExportInfo info = layer.Disk.Info;
        Assert.That((info.CanWrite, info.CanTrim, info.CanZero, info.CanFastZero, info.CanFua),
            Is.EqualTo((false, false, Support.None, false, Support.None)));
        Assert.That((info.CanFlush, info.CanCache, info.CanMultiConn, info.CanExtents),
            Is.EqualTo((true, Support.Native, true, true)), "these are not gated");
        NextContext disk = layer.Disk;
        CancellationToken none = CancellationToken.None;
        Refuses(async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.None, none), "write");
        Refuses(async () => await disk.TrimAsync(0, 1, RequestFlags.None, none), "trim");
        Refuses(async () => await disk.ZeroAsync(0, 1, RequestFlags.None, none), "zero");
        await disk.ReadAsync(new byte[1], 0, none);
        await disk.FlushAsync(none);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "read 0+1", "flush" }));
    }

    [Test]
    public async Task A_layer_that_cannot_write_cannot_trim_zero_or_promise_FUA_whatever_it_says()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with
        {
            CanWrite = false,
            CanTrim = true,
            CanZero = Support.Native,
            CanFastZero = true,
            CanFua = Support.Native,
        });
        NbdExportInfo info = layer.Disk.Info;
        Assert.That((info.CanWrite, info.CanTrim, info.CanZero, info.CanFastZero, info.CanFua),
            Is.EqualTo((false, false, Support.None, false, Support.None)));
    }

    [Test]
    public async Task A_layer_that_cannot_zero_cannot_fast_zero()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(
            kind, info => info with { CanZero = Support.None, CanFastZero = true });
        Assert.That(layer.Disk.Info.CanFastZero, Is.False);
        Refuses(async () => await layer.Disk.ZeroAsync(0, 1, RequestFlags.None, CancellationToken.None), "zero");
    }

    [Test]
    public async Task What_is_not_supported_is_refused_with_its_name_and_never_reaches_the_layer()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with
        {
            CanFlush = false,
            CanTrim = false,
            CanFastZero = false,
            CanFua = Support.None,
            CanCache = Support.None,
        });
        NextContext disk = layer.Disk;
        CancellationToken none = CancellationToken.None;
        Refuses(async () => await disk.FlushAsync(none), "flush");
        Refuses(async () => await disk.TrimAsync(0, 1, RequestFlags.None, none), "trim");
        Refuses(async () => await disk.CacheAsync(0, 1, none), "cache");
        Refuses(async () => await disk.ZeroAsync(0, 1, RequestFlags.FastZero, none), "fast zero");
        Refuses(async () => await disk.WriteAsync(new byte[1], 0, RequestFlags.Fua, none), "FUA");
        Refuses(async () => await disk.ZeroAsync(0, 1, RequestFlags.Fua, none), "FUA");
        Assert.That(layer.Calls, Is.Empty);
    }

    [Test]
    public async Task Derived_defaults_are_definite_in_what_the_layer_above_sees()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(
            kind, _ => new NbdExportInfo { Size = 10, CanWrite = true, CanFlush = true });
        NbdExportInfo info = layer.Disk.Info;
        Assert.That((info.CanZero, info.CanFastZero, info.CanFua), Is.EqualTo((Support.Emulate, true, Support.Emulate)));
        NbdExportInfo changed = info with { CanFlush = false, CanZero = Support.Native };
        Assert.That((changed.CanFua, changed.CanFastZero), Is.EqualTo((Support.Emulate, true)), "they follow nothing any more");
    }

    [Test, Property("Rule", "E15")]
    public async Task E15_A_layer_is_asked_once_what_it_is_and_the_answer_holds()
    {
        int asked = 0;
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info =>
        {
            asked++;
            return info with { Size = 100 * asked };
        });
        await layer.Disk.ReadAsync(new byte[1], 99, CancellationToken.None);
        Assert.That((layer.Disk.Info.Size, layer.Disk.Info.Size, asked), Is.EqualTo((100, 100, 1)));
    }

    [Test, Property("Rule", "E16")]
    public async Task E16_Block_sizes_are_what_the_layer_says_and_are_not_combined()
    {
        var own = new BlockSize(512, 4096);
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with { BlockSize = own });
        Assert.That(layer.Disk.Info.BlockSize, Is.EqualTo(own));
        // A layer's own constraints bind its clients, not the layers above: these may ask for any range.
        await layer.Disk.ReadAsync(new byte[3], 1, CancellationToken.None);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "read 1+3" }));
    }

    private void Refuses(Func<Task> call, string what)
        => Assert.That(call, Throws.InvalidOperationException.With.Message.StartsWith($"{kind} does not support {what}:"));
}
