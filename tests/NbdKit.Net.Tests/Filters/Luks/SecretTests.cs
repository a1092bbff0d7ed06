using NbdKit.Filters.Luks;

namespace NbdKit.Tests.Filters.Luks;

public sealed class SecretTests
{
    [Test]
    public void What_is_disposed_of_is_wiped()
    {
        byte[] mine = [1, 2, 3];
        var secret = new Secret(mine);
        Memory<byte> kept = secret.Memory;
        Assert.That(kept.ToArray(), Is.EqualTo(mine));
        secret.Dispose();
        Assert.That(kept.ToArray(), Is.EqualTo(new byte[3]));
        Assert.That(mine, Is.EqualTo(new byte[] { 1, 2, 3 }), "the caller's copy");
    }

    [Test]
    public void A_line_ends_where_it_ends_and_nothing_behind_it_is_read()
    {
        using var stream = new MemoryStream("first\nsecond"u8.ToArray());
        using Secret first = PassphraseArgument.Line(stream);
        Assert.That(stream.Position, Is.EqualTo(6));
        using Secret second = PassphraseArgument.Line(stream);
        using Secret none = PassphraseArgument.Line(stream);
        Assert.That(first.Span.SequenceEqual("first"u8) && second.Span.SequenceEqual("second"u8) && none.Span.IsEmpty);
        using var endless = new MemoryStream(new byte[100_000]);
        Assert.That(() => PassphraseArgument.Line(endless), Throws.InstanceOf<InvalidDataException>());
    }
}
