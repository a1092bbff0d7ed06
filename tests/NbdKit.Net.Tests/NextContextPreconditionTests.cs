using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

/// <summary>Ranges and flags: what a caller must keep, and what never reaches a layer if it does not.</summary>
[TestFixture(TestedLayer.Plugin)]
[TestFixture(TestedLayer.Filter)]
public sealed class NextContextPreconditionTests(string kind)
{
    private const int Size = 1000;
    private static readonly CancellationToken None = CancellationToken.None;

    // Offset, length.
    private static readonly object[] BadRanges =
    [
        new object[] { 0L, 0L },
        new object[] { 1000L, 1L },
        new object[] { 999L, 2L },
        new object[] { 0L, 1001L },
        new object[] { -1L, 1L },
        new object[] { 1001L, 1L },
        new object[] { long.MaxValue, 1L },
        new object[] { long.MinValue, 1L },
    ];

    [TestCaseSource(nameof(BadRanges))]
    [TestCase(5, -1)]
    [TestCase(5, long.MaxValue)]
    [TestCase(long.MaxValue, long.MaxValue)]
    public async Task A_range_that_is_empty_or_not_inside_the_export_is_refused(long offset, long length)
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, size: Size);
        NextContext disk = layer.Disk;
        Refuses(async () => await disk.TrimAsync(offset, length, RequestFlags.None, None));
        Refuses(async () => await disk.ZeroAsync(offset, length, RequestFlags.None, None));
        Refuses(async () => await disk.CacheAsync(offset, length, None));
        Refuses(async () => await disk.ExtentsAsync(offset, length, RequestFlags.None, new ExtentList(0, Size), None));
        Refuses(async () => await disk.ExtentsFullAsync(offset, length, ExtentList.BaseAllocation, None));
        Refuses(async () => await disk.ExtentsAlignedAsync(offset, length, 512, new ExtentList(0, Size), None));
        Assert.That(layer.Calls, Is.Empty);
    }

    [TestCaseSource(nameof(BadRanges))]
    public async Task A_payload_that_is_empty_or_not_inside_the_export_is_refused(long offset, long length)
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, size: Size);
        byte[] payload = new byte[length];
        Refuses(async () => await layer.Disk.ReadAsync(payload, offset, None));
        Refuses(async () => await layer.Disk.WriteAsync(payload, offset, RequestFlags.None, None));
        Assert.That(layer.Calls, Is.Empty);
    }

    [Test]
    public async Task The_first_and_the_last_byte_and_the_whole_export_can_be_reached()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, size: Size);
        byte[] whole = new byte[Size];
        whole.AsSpan().Fill(7);
        await layer.Disk.WriteAsync(whole, 0, RequestFlags.None, None);
        byte[] one = new byte[1];
        await layer.Disk.ReadAsync(one, 0, None);
        await layer.Disk.ReadAsync(one, Size - 1, None);
        Assert.That(one[0], Is.EqualTo(7));
        await layer.Disk.TrimAsync(0, Size, RequestFlags.None, None);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "write 0+1000", "read 0+1", "read 999+1", "trim 0+1000" }));
    }

    [Test]
    public async Task An_export_of_no_bytes_opens_and_takes_no_range()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind, info => info with { Size = 0 });
        Refuses(async () => await layer.Disk.ReadAsync(new byte[1], 0, None));
        Refuses(async () => await layer.Disk.ReadAsync(Array.Empty<byte>(), 0, None));
        await layer.Disk.FlushAsync(None);
        Assert.That(layer.Calls, Is.EqualTo(new[] { "flush" }));
    }

    [TestCase(RequestFlags.MayTrim)]
    [TestCase(RequestFlags.FastZero)]
    [TestCase(RequestFlags.RequestOne)]
    [TestCase((RequestFlags)16)]
    [TestCase(RequestFlags.Fua | RequestFlags.MayTrim)]
    public async Task Flags_of_other_operations_are_refused_on_writes_and_trims(RequestFlags flags)
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind);
        RefusesFlags(async () => await layer.Disk.WriteAsync(new byte[1], 0, flags, None));
        RefusesFlags(async () => await layer.Disk.TrimAsync(0, 1, flags, None));
        Assert.That(layer.Calls, Is.Empty);
    }

    [Test]
    public async Task Flags_of_other_operations_are_refused_on_zeroes_and_extents()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind);
        RefusesFlags(async () => await layer.Disk.ZeroAsync(0, 1, RequestFlags.RequestOne, None));
        RefusesFlags(async () => await layer.Disk.ZeroAsync(0, 1, (RequestFlags)32, None));
        RefusesFlags(async () => await layer.Disk.ExtentsAsync(0, 1, RequestFlags.Fua, new ExtentList(0, 1), None));
        Assert.That(layer.Calls, Is.Empty);
    }

    [Test]
    public async Task Native_flags_reach_the_layer_as_they_are()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind);
        await layer.Disk.WriteAsync(new byte[1], 0, RequestFlags.Fua, None);
        await layer.Disk.TrimAsync(1, 1, RequestFlags.Fua, None);
        await layer.Disk.ZeroAsync(2, 1, RequestFlags.Fua | RequestFlags.MayTrim | RequestFlags.FastZero, None);
        await layer.Disk.ExtentsAsync(3, 1, RequestFlags.RequestOne, new ExtentList(3, 4), None);
        Assert.That(layer.Calls, Is.EqualTo(new[]
        {
            "write 0+1 Fua", "trim 1+1 Fua", "zero 2+1 Fua, MayTrim, FastZero", "extents 3+1 RequestOne",
        }));
    }

    [Test]
    public async Task A_failure_of_the_layer_reaches_the_caller_as_it_was_thrown()
    {
        await using TestedLayer layer = await TestedLayer.OpenAsync(kind);
        var thrown = new IOException("the disk is gone");
        layer.Script.Fail("read", _ => thrown);
        Assert.That(
            Assert.ThrowsAsync<IOException>(async () => await layer.Disk.ReadAsync(new byte[1], 0, None)), Is.SameAs(thrown));
        layer.Script.Succeed("read");
        await layer.Disk.ReadAsync(new byte[1], 0, None);
    }

    private static void Refuses(Func<Task> call) => Assert.That(call, Throws.InstanceOf<ArgumentOutOfRangeException>());

    private void RefusesFlags(Func<Task> call)
        => Assert.That(call, Throws.InvalidOperationException.With.Message.Contains($"not allowed on this operation of {kind}"));
}
