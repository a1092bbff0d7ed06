using NbdKit.Plugins.Scripts;

namespace NbdKit.Tests.Plugins.Scripts;

/// <summary>What scripts print is anybody's guess.</summary>
public sealed class ScriptTextTests
{
    private const string Letters = "0123456789 \t\n\n.,+-#_xkMGEsholezr\r\u00f6";

    [Test]
    public void Whatever_is_printed_is_read_or_refused()
    {
        int seed = Environment.TickCount;
        var random = new Random(seed);
        for (int i = 0; i < 20_000; i++)
        {
            string text = new(random.GetItems<char>(Letters, random.Next(40)));
            try
            {
                ScriptText.Extents(text, new ExtentList(0, 1 << 20));
            }
            catch (Exception e) when (e is FormatException or ArgumentException)
            {
            }
            try
            {
                _ = ScriptText.BlockSize(text);
            }
            catch (FormatException)
            {
            }
            List<(string Name, string? Description)> exports = ScriptText.Exports(text);
            Assert.That(exports.Any(export => export.Name.Contains('\n', StringComparison.Ordinal)), Is.False, $"seed {seed}");
        }
    }

    [TestCase("0 1M", "0+1048576=Data")]
    [TestCase("0 512K hole\n512K 512K zero,hole\n", "0+524288=Hole 524288+524288=3")]
    [TestCase("\n# comment\n 0\t1M\t2 more", "0+1048576=Zero")]
    [TestCase("0 4K 0x3\n4K 1M", "0+4096=3 4096+1044480=Data")]
    public void Extents_are_lines_of_two_sizes_and_a_type(string text, string expected)
    {
        var extents = new ExtentList(0, 1 << 20);
        ScriptText.Extents(text, extents);
        string[] shown = [.. extents.Select(e => $"{e.Offset}+{e.Length}={(e.Status == (ExtentStatus)3 ? "3" : e.Status)}")];
        Assert.That(string.Join(' ', shown), Is.EqualTo(expected));
    }

    [Test]
    public void Flags_are_words_in_a_fixed_order()
        => Assert.That(
            ScriptText.Flags(RequestFlags.FastZero | RequestFlags.Fua | RequestFlags.MayTrim | RequestFlags.RequestOne),
            Is.EqualTo("fua,may_trim,req_one,fast"));
}
