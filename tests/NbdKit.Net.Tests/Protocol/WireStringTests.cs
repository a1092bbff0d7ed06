using System.Text;
using NbdKit.Protocol;

namespace NbdKit.Tests.Protocol;

public sealed class WireStringTests
{
    [TestCase("")]
    [TestCase("disk")]
    [TestCase("a/b c\t\u202e\U0001F4BE")]
    public void Legal_strings_are_decoded_as_they_are(string text)
    {
        Assert.That(WireString.TryDecode(Encoding.UTF8.GetBytes(text), out string value));
        Assert.That(value, Is.EqualTo(text));
    }

    [TestCase("00")]
    [TestCase("610062")]
    [TestCase("ff")]
    [TestCase("c0af")]
    [TestCase("e080af")]
    [TestCase("eda080")]
    [TestCase("f4908080")]
    [TestCase("c3")]
    public void NUL_and_bytes_that_are_no_UTF_8_are_refused(string hex)
        => Assert.That(WireString.TryDecode(Convert.FromHexString(hex), out _), Is.False);

    [Test]
    public void A_string_may_have_4096_bytes()
    {
        Assert.That(WireString.TryDecode([.. Enumerable.Repeat((byte)'x', 4096)], out _));
        Assert.That(WireString.TryDecode([.. Enumerable.Repeat((byte)'x', 4097)], out _), Is.False);
        Assert.That(() => WireString.Check(new string('é', 2048), "name"), Throws.Nothing);
        Assert.That(() => WireString.Check(new string('é', 2049), "name"), Throws.ArgumentException);
    }

    [TestCase("a\0b", 100, "a\ufffdb")]
    [TestCase("plain", 100, "plain")]
    [TestCase("plain", 3, "pla")]
    [TestCase("éé", 3, "é")]
    [TestCase("\U0001F4BE\U0001F4BE", 7, "\U0001F4BE")]
    [TestCase("x", 0, "")]
    public void Messages_are_cleaned_and_cut_at_a_character(string text, int maximum, string expected)
        => Assert.That(Encoding.UTF8.GetString(WireString.EncodeMessage(text, maximum)), Is.EqualTo(expected));

    [Test]
    public void A_lone_surrogate_in_a_message_is_replaced()
        => Assert.That(WireString.EncodeMessage("a\ud800b", 100), Is.EqualTo("a\ufffdb"u8.ToArray()));
}
