using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using static NbdKit.Tests.Testing.Qcow2Layout;

namespace NbdKit.Tests.Filters;

/// <summary>What an image says of its disk where that is in a backing file.</summary>
public sealed class Qcow2BackingExtentsTests
{
    [Test]
    public async Task An_answer_about_extents_takes_so_many_steps_in_all_images_together()
    {
        // The top has one cluster of 64; of the others below, every second one is there.
        const int Clusters = 16_384;
        byte[] content = new byte[Clusters * 512];
        content.AsSpan().Fill(7);
        var layout = new Qcow2Layout(content.Length);
        byte[] below = layout.Image(content);
        byte[] top = WithBacking(layout.Image(content), "base", "qcow2");
        for (int i = 0; i < Clusters; i++)
        {
            if (i % 2 == 1)
            {
                U64(below, layout.Entry(i), 0);
            }
            if (i % 64 != 0)
            {
                U64(top, layout.Entry(i), 0);
            }
        }
        await using NbdBackend chain = Chain(top, new DataPlugin { Data = below });
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(0, content.Length, maximumCount: int.MaxValue);
        await disk.ExtentsAsync(0, content.Length, RequestFlags.None, extents, default);
        Assert.That(extents.Covered, Is.InRange(512 * 512, 1100 * 512));
        ExtentList all = await disk.ExtentsFullAsync(0, content.Length, ExtentList.BaseAllocation, default);
        Assert.That(all.Select(e => (e.Offset, e.Status == ExtentStatus.Data)).Take(4), Is.EqualTo(new[] { (0L, true), (512L, false), (1024L, true), (1536L, false) }));
        Assert.That(all.Where(e => e.Status == ExtentStatus.Data).Sum(e => e.Length), Is.EqualTo(content.Length / 2));
    }

    [Test]
    public async Task A_short_answer_of_a_backing_file_does_not_end_that_of_the_image()
    {
        byte[] content = TestData.Random(20 * 512, 1);
        int asked = 0;
        var raw = new DelegatePlugin
        {
            Size = content.Length,
            Read = (buffer, offset, _) =>
            {
                content.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
                return default;
            },
            // One cluster at a time, whatever is asked.
            Extents = (offset, length, _, extents, _) =>
            {
                asked++;
                extents.Add(offset, Math.Min(length, 512), offset / 512 % 2 == 0 ? ExtentStatus.Data : ExtentStatus.Hole | ExtentStatus.Zero);
                return default;
            },
        };
        var layout = new Qcow2Layout(content.Length);
        byte[] top = WithBacking(layout.Image(content), "base", "raw");
        for (int i = 3; i < 20; i++)
        {
            U64(top, layout.Entry(i), 0);
        }
        await using NbdBackend chain = Chain(top, raw);
        await using NextContext disk = await chain.OpenAsync();
        var extents = new ExtentList(0, content.Length);
        await disk.ExtentsAsync(0, content.Length, RequestFlags.None, extents, default);
        Assert.That((extents.Covered, asked), Is.EqualTo((content.Length, 17)));
        asked = 0;
        var one = new ExtentList(1536, content.Length);
        await disk.ExtentsAsync(1536, content.Length - 1536, RequestFlags.RequestOne, one, default);
        Assert.That((one[0].Offset, one[0].Length), Is.EqualTo((1536, 512)));
        Assert.That(asked, Is.LessThanOrEqualTo(2));
    }

    private static NbdBackend Chain(byte[] image, INbdPlugin backing)
        => NbdBackend.Compose(new DataPlugin { Data = image }, new Qcow2DecFilter { OpenFile = (_, _) => NbdBackend.Compose(backing) });
}
