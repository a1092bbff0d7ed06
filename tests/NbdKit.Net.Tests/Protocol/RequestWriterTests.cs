using NbdKit.Protocol;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Protocol;

/// <summary>Requests and heads of replies, byte for byte.</summary>
public sealed class RequestWriterTests
{
    [Test]
    public void A_compact_request_has_28_bytes()
    {
        byte[] bytes = new byte[RequestWriter.SizeOf(extended: false)];
        RequestWriter.Write(bytes, false, CommandFlags.Fua, CommandType.Trim, 0x0102030405060708, 0x1112131415161718, 0x21222324);

        Assert.That(bytes, Is.EqualTo(WireBytes.Request(Cmd.Trim, 0x0102030405060708, 0x1112131415161718, 0x21222324, CmdFlag.Fua)));
        Assert.Throws<OverflowException>(() => RequestWriter.Write(bytes, false, 0, CommandType.Trim, 0, 0, 1UL << 32));
    }

    [Test]
    public void An_extended_request_has_32_bytes()
    {
        byte[] bytes = new byte[RequestWriter.SizeOf(extended: true)];
        RequestWriter.Write(
            bytes, true, CommandFlags.PayloadLength, CommandType.Write, 0x0102030405060708, 0x1112131415161718, 0x2122232425262728);

        Assert.That(bytes, Is.EqualTo(new WireBytes().U32(0x21e41c71).U16(CmdFlag.PayloadLength).U16(Cmd.Write)
            .U64(0x0102030405060708).U64(0x1112131415161718).U64(0x2122232425262728).ToArray()));
    }

    [Test]
    public void The_three_heads_of_replies_are_told_apart_by_their_magic()
    {
        ReplyHeader simple = Read(new WireBytes().U32(0x67446698).U32(5).U64(77));
        ReplyHeader chunk = Read(new WireBytes().U32(0x668e33ef).U16(0xfffe).U16(0x8002).U64(78).U32(9));
        ReplyHeader extended = Read(new WireBytes().U32(0x6e8a278c).U16(0xffff).U16(6).U64(79).U64(10).U64(11));

        Assert.That((simple.IsSimple, simple.IsDone, simple.Error, simple.Cookie), Is.EqualTo((true, true, 5u, 77UL)));
        Assert.That(
            (chunk.IsSimple, chunk.IsDone, (ushort)chunk.Type, chunk.Cookie, chunk.Length), Is.EqualTo((false, false, 0x8002, 78UL, 9UL)));
        Assert.That(
            (extended.IsDone, (ushort)extended.Type, extended.Cookie, extended.Offset, extended.Length),
            Is.EqualTo((true, 6, 79UL, 10UL, 11UL)));
        Assert.That(ReplyHeader.SizeOf(0x12345678), Is.Zero);
    }

    private static ReplyHeader Read(WireBytes bytes)
    {
        byte[] array = bytes.ToArray();
        Assert.That(ReplyHeader.SizeOf(ReplyHeader.PeekMagic(array)), Is.EqualTo(array.Length));
        return ReplyHeader.Read(array);
    }
}
