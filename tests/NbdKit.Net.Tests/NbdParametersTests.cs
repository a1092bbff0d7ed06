namespace NbdKit.Tests;

public sealed class NbdParametersTests
{
    private static readonly NbdParameters Parameters = new("layer",
    [
        new("size", "1k"), new("flag", "yes"), new("delay", "10ms"), new("p", "50%"), new("n", "0x10"), new("mode", "fast"),
        new("file", "a"), new("file", "b"), new("bad", "?"), new("negative", "-1"), new("huge", "2147483648"), new("empty", ""),
    ]);

    [Test]
    public void Values_are_read_by_name_and_type()
    {
        Assert.That(Parameters.Size("size"), Is.EqualTo(1024));
        Assert.That(Parameters.Boolean("flag"), Is.True);
        Assert.That(Parameters.Delay("delay"), Is.EqualTo(TimeSpan.FromMilliseconds(10)));
        Assert.That(Parameters.Probability("p"), Is.EqualTo(0.5));
        Assert.That(Parameters.Integer("n"), Is.EqualTo(16));
        Assert.That(Parameters.OneOf("mode", ("slow", 1), ("fast", 2)), Is.EqualTo(2));
        Assert.That(Parameters.Text("mode"), Is.EqualTo("fast"));
        Assert.That(Parameters.Required("mode"), Is.EqualTo("fast"));
        Assert.That(Parameters.Text("empty"), Is.Empty);
        Assert.That(Parameters.Texts("file"), Is.EqualTo(new[] { "a", "b" }));
        Assert.That(Parameters.Text("file"), Is.EqualTo("b"), "the last one counts");
        Assert.That(Parameters.All.Select(p => p.Key).Skip(5).Take(3), Is.EqualTo(new[] { "mode", "file", "file" }));
    }

    [Test]
    public void What_was_not_given_is_null_or_empty()
    {
        Assert.That((Parameters.Size("x"), Parameters.Boolean("x"), Parameters.Delay("x"), Parameters.Probability("x"), Parameters.Integer("x"), Parameters.Text("x")),
            Is.EqualTo((default(long?), default(bool?), default(TimeSpan?), default(double?), default(int?), default(string))));
        Assert.That(Parameters.OneOf("x", ("slow", 1)), Is.Null);
        Assert.That(Parameters.Texts("x"), Is.Empty);
        Assert.That(Parameters.Text("SIZE"), Is.Null, "names are case-sensitive");
        Assert.That(
            () => Parameters.Required("x"), Throws.ArgumentException.With.Message.StartsWith("layer: the parameter x= is required"));
    }

    [Test]
    public void A_value_that_is_wrong_is_named()
    {
        Refuses(() => Parameters.Size("bad"));
        Refuses(() => Parameters.Boolean("bad"));
        Refuses(() => Parameters.Delay("bad"));
        Refuses(() => Parameters.Probability("bad"));
        Refuses(() => Parameters.Integer("bad"));
        Assert.That(() => Parameters.Integer("negative"), Throws.ArgumentException.With.Message.StartsWith("layer: negative=-1:"));
        Assert.That(() => Parameters.Integer("huge"), Throws.ArgumentException.With.Message.StartsWith("layer: huge=2147483648:"));
        Assert.That(
            () => Parameters.OneOf("bad", ("slow", 1), ("fast", 2)),
            Throws.ArgumentException.With.Message.Contains("layer: bad=?: '?' is not one of slow, fast"));

        void Refuses<T>(Func<T> read)
            => Assert.That(() => read(), Throws.ArgumentException.With.Message.StartsWith("layer: bad=?: '?' is not"));
    }
}
