using NbdKit.Protocol;

namespace NbdKit.Tests.Protocol;

public sealed class RequestHeaderTests
{
    private static readonly byte[] Bytes =
        Convert.FromHexString("25609513" + "0011" + "0006" + "0102030405060708" + "1112131415161718" + "21222324");

    [Test]
    public void Every_field_is_read_from_its_place()
    {
        Assert.That(RequestHeader.TryRead(Bytes, extended: false, out RequestHeader header));
        Assert.That(header.Flags, Is.EqualTo(CommandFlags.Fua | CommandFlags.FastZero));
        Assert.That(header.Type, Is.EqualTo(CommandType.WriteZeroes));
        Assert.That(header.Cookie, Is.EqualTo(0x0102030405060708ul));
        Assert.That(header.Offset, Is.EqualTo(0x1112131415161718ul));
        Assert.That(header.Length, Is.EqualTo(0x21222324u));
        Assert.That(Bytes, Has.Length.EqualTo(RequestHeader.Size));
    }

    [Test]
    public void What_follows_the_header_is_not_looked_at()
    {
        Assert.That(RequestHeader.TryRead([.. Bytes, 0xff, 0xff], extended: false, out RequestHeader header));
        Assert.That(header.Length, Is.EqualTo(0x21222324u));
    }

    [Test]
    public void Extreme_values_are_read_as_unsigned()
    {
        byte[] bytes = [.. Bytes[..4], .. Enumerable.Repeat((byte)0xff, 24)];

        Assert.That(RequestHeader.TryRead(bytes, extended: false, out RequestHeader header));

        Assert.That((ushort)header.Flags, Is.EqualTo(ushort.MaxValue));
        Assert.That((ushort)header.Type, Is.EqualTo(ushort.MaxValue));
        Assert.That(header.Cookie, Is.EqualTo(ulong.MaxValue));
        Assert.That(header.Offset, Is.EqualTo(ulong.MaxValue));
        Assert.That(header.Length, Is.EqualTo(uint.MaxValue));
    }

    [Test]
    public void A_magic_with_any_bit_wrong_is_no_request()
    {
        for (int bit = 0; bit < 32; bit++)
        {
            byte[] bytes = [.. Bytes];
            bytes[bit / 8] ^= (byte)(1 << (bit % 8));
            Assert.That(RequestHeader.TryRead(bytes, extended: false, out _), Is.False, $"bit {bit}");
        }
    }

    [Test]
    public void An_extended_header_has_a_length_of_64_bits_and_a_magic_of_its_own()
    {
        byte[] bytes = Convert.FromHexString(
            "21e41c71" + "0021" + "0001" + "0102030405060708" + "1112131415161718" + "2122232425262728");

        Assert.That(bytes, Has.Length.EqualTo(RequestHeader.ExtendedSize));
        Assert.That(RequestHeader.TryRead(bytes, extended: true, out RequestHeader header));
        Assert.That(header.Flags, Is.EqualTo(CommandFlags.Fua | CommandFlags.PayloadLength));
        Assert.That(header.Type, Is.EqualTo(CommandType.Write));
        Assert.That(header.Cookie, Is.EqualTo(0x0102030405060708ul));
        Assert.That(header.Offset, Is.EqualTo(0x1112131415161718ul));
        Assert.That(header.Length, Is.EqualTo(0x2122232425262728ul));
        Assert.That(RequestHeader.TryRead(bytes, extended: false, out _), Is.False);
        Assert.That(RequestHeader.TryRead([.. Bytes, 0, 0, 0, 0], extended: true, out _), Is.False);
    }
}
