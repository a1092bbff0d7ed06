using System.Text;
using NbdKit.Tool.Copying;

namespace NbdKit.Tests.Tool.Copying;

public sealed class CopyProgressTests
{
    [TestCase(0L, 100_000_000L, 0, "copying   0 % [--------------------------------]      0 MB/s")]
    [TestCase(
        50_000_000L, 100_000_000L, 2, "copying  50 % [################----------------]     25 MB/s 0:02")]
    [TestCase(1_000_000L, 1L << 60, 1, "copying   0 % [--------------------------------]      1 MB/s 99:59:59")]
    [TestCase(0L, 0L, 1, "copying 100 % [################################]      0 MB/s")]
    public void The_bar_has_share_speed_and_rest(long done, long total, int seconds, string expected)
        => Assert.That(
            CopyProgress.Bar(new NbdCopyProgress(done, total, TimeSpan.FromSeconds(seconds), false)), Is.EqualTo(expected));

    [Test]
    public void Of_an_unknown_whole_only_the_part_is_shown()
    {
        Assert.That(
            CopyProgress.Bar(new NbdCopyProgress(7_000_000, null, TimeSpan.FromSeconds(2), false)),
            Is.EqualTo("copying 7 MB      4 MB/s"));
        Assert.That(
            CopyProgress.Bar(new NbdCopyProgress(5, 10, TimeSpan.FromSeconds(2), true)),
            Is.EqualTo("verifying  50 % [################----------------]"));
    }

    [Test]
    public void Elsewhere_each_percent_is_a_line()
    {
        var output = new MemoryStream();
        using (var progress = new CopyProgress(output, isTerminal: false))
        {
            foreach (long done in new long[] { 0, 1, 10, 10, 999, 1000 })
            {
                progress.Show(new NbdCopyProgress(done, 1000, TimeSpan.FromSeconds(1), false));
            }
        }
        Assert.That(Encoding.UTF8.GetString(output.ToArray()), Is.EqualTo("0/100\n1/100\n99/100\n100/100\n"));
    }
}
