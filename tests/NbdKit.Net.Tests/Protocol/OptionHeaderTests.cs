using NbdKit.Protocol;

namespace NbdKit.Tests.Protocol;

public sealed class OptionHeaderTests
{
    private static readonly byte[] Bytes = Convert.FromHexString("49484156454f5054" + "00000007" + "fffffffe");

    [Test]
    public void Every_field_is_read_from_its_place()
    {
        Assert.That(OptionHeader.TryRead(Bytes, out OptionHeader header));
        Assert.That(header, Is.EqualTo(new OptionHeader(OptionType.Go, 0xfffffffe)));
        Assert.That(Bytes, Has.Length.EqualTo(OptionHeader.Size));
    }

    [Test]
    public void A_magic_with_any_bit_wrong_is_no_option()
    {
        for (int bit = 0; bit < 64; bit++)
        {
            byte[] bytes = [.. Bytes];
            bytes[bit / 8] ^= (byte)(1 << (bit % 8));
            Assert.That(OptionHeader.TryRead(bytes, out _), Is.False, $"bit {bit}");
        }
    }
}
