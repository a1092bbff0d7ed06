using NbdKit.Tests.Testing;

namespace NbdKit.Tests;

public class NextContextAlignedExtentsTests
{
    [Test]
    public async Task The_short_block_at_the_end_of_the_largest_disk_is_kept()
    {
        const int Size = 8191;
        await using NbdBackend chain = NbdBackend.Compose(new ModelPlugin(new byte[Size]) { Base = long.MaxValue - Size });
        await using NextContext disk = await chain.OpenAsync();
        long start = long.MaxValue - 4095;
        var extents = new ExtentList(start, long.MaxValue);
        await disk.ExtentsAlignedAsync(start, 4095, 4096, extents, default);
        Assert.That(extents.Covered, Is.EqualTo(long.MaxValue));
        Assert.That(extents.All(e => (e.Status & ExtentStatus.Zero) != 0), Is.True);
    }

    [Test]
    public async Task A_layer_that_tells_little_at_a_time_is_not_asked_until_the_end_of_the_largest_disk()
    {
        int calls = 0;
        TestExport export = Sliced(1 << 20, () => calls++);
        await using NbdBackend chain = NbdBackend.Compose(new TestPlugin(export));
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(513, disk.Info.Size);

        await disk.ExtentsAlignedAsync(513, disk.Info.Size - 513, 4096, extents, default);

        Assert.That(calls, Is.LessThanOrEqualTo(1000));
        Assert.That(extents.Covered, Is.GreaterThan(64 << 20));
        Assert.That(extents, Has.Count.EqualTo(1), "all of it is alike");
    }

    [Test]
    public async Task A_layer_that_tells_less_than_a_block_at_a_time_is_asked_for_a_whole_one()
    {
        TestExport export = Sliced(1, () => { });
        await using NbdBackend chain = NbdBackend.Compose(new TestPlugin(export));
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(4096, disk.Info.Size);

        await disk.ExtentsAlignedAsync(4096, 1 << 20, 4096, extents, default);

        Assert.That(extents.Covered, Is.EqualTo(8192));
    }

    [Test]
    public async Task Asking_for_all_of_a_disk_can_be_cancelled_though_the_layer_does_not_look()
    {
        using var cancel = new CancellationTokenSource();
        int calls = 0;
        TestExport export = Sliced(1 << 20, () =>
        {
            if (++calls == 50)
            {
                cancel.Cancel();
            }
        });
        await using NbdBackend chain = NbdBackend.Compose(new TestPlugin(export));
        await using NextContext disk = await chain.OpenAsync();

        Assert.CatchAsync<OperationCanceledException>(
            async () => await disk.ExtentsFullAsync(0, disk.Info.Size, ExtentList.BaseAllocation, cancel.Token));

        Assert.That(calls, Is.EqualTo(50));
    }

    private static TestExport Sliced(long slice, Action called)
    {
        int calls = 0;
        return new TestExport
        {
            Size = long.MaxValue,
            Extents = (call, extents) =>
            {
                if (++calls > 100_000)
                {
                    throw new InvalidOperationException("It would be asked for years.");
                }
                called();
                extents.Add(call.Offset, Math.Min(call.Length, slice), ExtentStatus.Hole | ExtentStatus.Zero);
            },
        };
    }
}
