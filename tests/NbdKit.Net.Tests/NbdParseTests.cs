using System.Globalization;

namespace NbdKit.Tests;

/// <summary>nbdkit's ways of writing values; the examples are those of its manual and of its own tests.</summary>
public sealed class NbdParseTests
{
    [TestCase("0", 0)]
    [TestCase("1", 1)]
    [TestCase("1234567890", 1234567890)]
    [TestCase("9223372036854775807", long.MaxValue)]
    [TestCase("4s", 2048)]
    [TestCase("2S", 1024)]
    [TestCase("1b", 1)]
    [TestCase("1B", 1)]
    [TestCase("1k", 1024)]
    [TestCase("1K", 1024)]
    [TestCase("1m", 1L << 20)]
    [TestCase("1G", 1L << 30)]
    [TestCase("1t", 1L << 40)]
    [TestCase("1P", 1L << 50)]
    [TestCase("8191p", 8191L << 50)]
    [TestCase("7E", 7L << 60)]
    [TestCase("1.5G", 3L << 29)]
    [TestCase("0.5k", 512)]
    [TestCase("1.0", 1)]
    [TestCase("2.25s", 1152)]
    [TestCase("0x1_E", 1L << 60)]
    [TestCase("0x1E", 30)]
    [TestCase("0x1b", 27)]
    [TestCase("0x1_b", 1)]
    [TestCase("0x10k", 16384)]
    [TestCase("0X7fffffffffffffff", long.MaxValue)]
    [TestCase("1_k", 1024)]
    [TestCase("010", 8)]
    [TestCase("010k", 8192)]
    [TestCase(" 1 ", 1)]
    [TestCase("+1M", 1L << 20)]
    public void Sizes(string text, long expected) => Assert.That(NbdParse.Size(text), Is.EqualTo(expected));

    [TestCase("")]
    [TestCase(" ")]
    [TestCase("garbage")]
    [TestCase("0garbage")]
    [TestCase("M")]
    [TestCase("_k")]
    [TestCase("1__k")]
    [TestCase("1MB")]
    [TestCase("1MiB")]
    [TestCase("1 k")]
    [TestCase("1,5G")]
    [TestCase("1.5.5k")]
    [TestCase("1.")]
    [TestCase("1.5")]
    [TestCase("0.3k")]
    [TestCase("1e3")]
    [TestCase("0x")]
    [TestCase("0xg")]
    [TestCase("0x1.8k")]
    [TestCase("0x_k")]
    [TestCase("08")]
    [TestCase("-1")]
    [TestCase("+-1")]
    [TestCase("+")]
    [TestCase("-9223372036854775808")]
    [TestCase("8E")]
    [TestCase("8192P")]
    [TestCase("9223372036854775808")]
    [TestCase("18446744073709551616")]
    [TestCase("999999999999999999999999")]
    [TestCase("0xffffffffffffffff")]
    [TestCase("1\u0660")]
    public void What_is_no_size(string text)
        => Assert.That(() => NbdParse.Size(text), Throws.InstanceOf<FormatException>().With.Message.StartsWith($"'{text}'"));

    [Test]
    public void A_size_of_absurd_length_is_refused_quickly()
        => Assert.That(() => NbdParse.Size(new string('9', 1_000_000)), Throws.InstanceOf<FormatException>());

    [TestCase("1", true)]
    [TestCase("TRUE", true)]
    [TestCase("t", true)]
    [TestCase("Yes", true)]
    [TestCase("y", true)]
    [TestCase("on", true)]
    [TestCase("0", false)]
    [TestCase("false", false)]
    [TestCase("F", false)]
    [TestCase("no", false)]
    [TestCase("N", false)]
    [TestCase("OFF", false)]
    public void Switches(string text, bool expected) => Assert.That(NbdParse.Boolean(text), Is.EqualTo(expected));

    [TestCase("")]
    [TestCase("2")]
    [TestCase(" 1")]
    [TestCase("ye")]
    [TestCase("enabled")]
    public void What_is_no_switch(string text)
        => Assert.That(() => NbdParse.Boolean(text), Throws.InstanceOf<FormatException>());

    [TestCase("0", 0)]
    [TestCase("1", 1)]
    [TestCase("2", 2)]
    [TestCase("0.1", 0.1)]
    [TestCase("1e-8", 1e-8)]
    [TestCase("10%", 0.1)]
    [TestCase("90.25%", 0.9025)]
    [TestCase("200%", 2)]
    [TestCase("1:10", 0.1)]
    [TestCase("1/1000", 0.001)]
    [TestCase("2:99", 2.0 / 99)]
    [TestCase("0:1000000", 0)]
    public void Probabilities(string text, double expected) => Assert.That(NbdParse.Probability(text), Is.EqualTo(expected));

    [TestCase("")]
    [TestCase("%")]
    [TestCase("garbage")]
    [TestCase("1X")]
    [TestCase("1%%")]
    [TestCase("1:")]
    [TestCase(":1")]
    [TestCase("1:1:1")]
    [TestCase("1:0")]
    [TestCase("0:0")]
    [TestCase("1/2/3")]
    [TestCase("inf")]
    [TestCase("nan")]
    [TestCase("NaN")]
    [TestCase("Infinity")]
    [TestCase("-1")]
    [TestCase("-0")]
    [TestCase("-1/1")]
    [TestCase("1e200/1e-200")]
    [TestCase("1,5")]
    public void What_is_no_probability(string text)
        => Assert.That(() => NbdParse.Probability(text), Throws.InstanceOf<FormatException>());

    [TestCase("0", 0)]
    [TestCase("1", 10_000_000)]
    [TestCase("2s", 20_000_000)]
    [TestCase("0.5", 5_000_000)]
    [TestCase("100ms", 1_000_000)]
    [TestCase("1.5ms", 15_000)]
    [TestCase("5us", 50)]
    [TestCase("5\u03bcs", 50)]
    [TestCase("5\u00b5s", 50)]
    [TestCase("100ns", 1)]
    [TestCase("40ns", 0)]
    [TestCase("1e3ms", 10_000_000)]
    public void Delays(string text, long ticks) => Assert.That(NbdParse.Delay(text).Ticks, Is.EqualTo(ticks));

    [TestCase("")]
    [TestCase("s")]
    [TestCase("ms")]
    [TestCase("-1")]
    [TestCase("1h")]
    [TestCase("1 s")]
    [TestCase("1ss")]
    [TestCase("nan")]
    [TestCase("1e300")]
    [TestCase("1e400")]
    [TestCase("922337203686")]
    public void What_is_no_delay(string text) => Assert.That(() => NbdParse.Delay(text), Throws.InstanceOf<FormatException>());

    [TestCase("0", 0)]
    [TestCase("+99", 99)]
    [TestCase("-99", -99)]
    [TestCase("-0", 0)]
    [TestCase("0xff", 255)]
    [TestCase("0Xff", 255)]
    [TestCase("-0xf", -15)]
    [TestCase("010", 8)]
    [TestCase("-010", -8)]
    [TestCase("9223372036854775807", long.MaxValue)]
    [TestCase("-9223372036854775808", long.MinValue)]
    [TestCase("-0x8000000000000000", long.MinValue)]
    public void Integers(string text, long expected) => Assert.That(NbdParse.Integer(text), Is.EqualTo(expected));

    [TestCase("")]
    [TestCase("-")]
    [TestCase("+")]
    [TestCase("- 0")]
    [TestCase("++0")]
    [TestCase("--0")]
    [TestCase("0x")]
    [TestCase("0xg")]
    [TestCase("08")]
    [TestCase("42x")]
    [TestCase("1.0")]
    [TestCase("1,000")]
    [TestCase("inf")]
    [TestCase("9223372036854775808")]
    [TestCase("-9223372036854775809")]
    [TestCase("999999999999999999999999")]
    public void What_is_no_integer(string text) => Assert.That(() => NbdParse.Integer(text), Throws.InstanceOf<FormatException>());

    [Test]
    public void Integers_out_of_their_range_are_refused()
    {
        Assert.That(NbdParse.Integer("5", 0, 5), Is.EqualTo(5));
        Assert.That(() => NbdParse.Integer("6", 0, 5), Throws.InstanceOf<FormatException>().With.Message.Contains("between 0 and 5"));
        Assert.That(() => NbdParse.Integer("-1", 0, 5), Throws.InstanceOf<FormatException>());
    }

    [Test]
    public void Cultures_make_no_difference()
    {
        CultureInfo before = CultureInfo.CurrentCulture;
        try
        {
            foreach (string name in new[] { "de-DE", "tr-TR", "ar-SA" })
            {
                CultureInfo.CurrentCulture = CultureInfo.GetCultureInfo(name);
                Assert.That(NbdParse.Size("1.5G"), Is.EqualTo(3L << 29), name);
                Assert.That(NbdParse.Probability("0.5"), Is.EqualTo(0.5), name);
                Assert.That(NbdParse.Delay("1.5ms").Ticks, Is.EqualTo(15_000), name);
                Assert.That((NbdParse.Boolean("FALSE"), NbdParse.Boolean("T"), NbdParse.Size("1P")), Is.EqualTo((false, true, 1L << 50)), name);
            }
        }
        finally
        {
            CultureInfo.CurrentCulture = before;
        }
    }

    [Test]
    public void Null_is_refused()
    {
        Assert.That(() => NbdParse.Size(null!), Throws.ArgumentNullException);
        Assert.That(() => NbdParse.Boolean(null!), Throws.ArgumentNullException);
        Assert.That(() => NbdParse.Probability(null!), Throws.ArgumentNullException);
        Assert.That(() => NbdParse.Delay(null!), Throws.ArgumentNullException);
        Assert.That(() => NbdParse.Integer(null!), Throws.ArgumentNullException);
    }
}
