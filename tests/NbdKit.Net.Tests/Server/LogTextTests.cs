using NbdKit.Server;

namespace NbdKit.Tests.Server;

public sealed class LogTextTests
{
    [TestCase("", "")]
    [TestCase("plain name", "plain name")]
    [TestCase("Müller/日本/🙂", "Müller/日本/🙂")]
    [TestCase("a\nb", "a\\u{a}b")]
    [TestCase("a\r\nFAKE", "a\\u{d}\\u{a}FAKE")]
    [TestCase("\u001b[31m", "\\u{1b}[31m")]
    [TestCase("\0", "\\u{0}")]
    [TestCase("\u007f\u0085", "\\u{7f}\\u{85}")]
    [TestCase("a\u202eb", "a\\u{202e}b")]
    [TestCase("a\u2028b\u2029", "a\\u{2028}b\\u{2029}")]
    [TestCase("\u200b\ufeff", "\\u{200b}\\u{feff}")]
    [TestCase("\ue000", "\\u{e000}")]
    public void Text_is_made_safe(string text, string expected)
        => Assert.That(LogText.Clean(text).ToCharArray(), Is.EqualTo(expected.ToCharArray()), "compared by characters");

    [Test]
    public void Half_a_surrogate_does_no_harm()
        => Assert.That(LogText.Clean("a\ud800b").ToCharArray(), Is.EqualTo("a\ufffdb".ToCharArray()));

    [Test]
    public void Long_text_is_cut()
    {
        Assert.That(LogText.Clean(new string('x', 80)), Is.EqualTo(new string('x', 80)));
        Assert.That(LogText.Clean(new string('x', 81)), Is.EqualTo(new string('x', 80) + "…"));
        Assert.That(LogText.Clean(new string('\n', 100_000)), Has.Length.LessThan(100));
        Assert.That(LogText.Clean(new string('x', 500), 400), Has.Length.EqualTo(401));
    }
}
