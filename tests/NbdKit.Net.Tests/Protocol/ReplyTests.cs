using NbdKit.Protocol;

namespace NbdKit.Tests.Protocol;

/// <summary>What the server writes, byte for byte: replies to options, simple replies, chunks.</summary>
public sealed class ReplyTests
{
    private static readonly RequestHeader Request = new() { Cookie = 0x0102030405060708, Offset = 0x3132333435363738 };

    [Test]
    public void An_option_reply_is_magic_option_type_length()
    {
        byte[] bytes = new byte[OptionReply.Size];
        OptionReply.Write(bytes, OptionType.Go, OptionReplyType.ErrUnknown, 0x01020304);
        Assert.That(Convert.ToHexString(bytes), Is.EqualTo("0003E889045565A9" + "00000007" + "80000006" + "01020304"));
    }

    [Test]
    public void A_simple_reply_is_magic_error_cookie()
    {
        byte[] bytes = new byte[SimpleReply.Size];
        SimpleReply.Write(bytes, 22, 0x0102030405060708);
        Assert.That(Convert.ToHexString(bytes), Is.EqualTo("67446698" + "00000016" + "0102030405060708"));
    }

    [TestCase(true, "0001")]
    [TestCase(false, "0000")]
    public void A_chunk_is_magic_flags_type_cookie_length(bool done, string flags)
    {
        byte[] bytes = new byte[ReplyChunk.Size];
        ReplyChunk.Write(bytes, ReplyForm.Structured, ChunkType.BlockStatus, Request, 12, done);
        Assert.That(Convert.ToHexString(bytes), Is.EqualTo("668E33EF" + flags + "0005" + "0102030405060708" + "0000000C"));
    }

    [Test]
    public void A_data_chunk_counts_its_offset_in_its_length()
    {
        byte[] bytes = new byte[ReplyChunk.DataSize(ReplyForm.Structured)];
        ReplyChunk.WriteData(bytes, ReplyForm.Structured, Request, 0x1112131415161718, 512);
        Assert.That(
            Convert.ToHexString(bytes),
            Is.EqualTo("668E33EF" + "0001" + "0001" + "0102030405060708" + "00000208" + "1112131415161718"));
    }

    [Test]
    public void An_error_chunk_holds_its_message()
    {
        byte[] bytes = new byte[ReplyChunk.ErrorSize(ReplyForm.Structured, 3, hasOffset: false)];
        ReplyChunk.WriteError(bytes, ReplyForm.Structured, Request, 5, "bad"u8);
        Assert.That(
            Convert.ToHexString(bytes),
            Is.EqualTo("668E33EF" + "0001" + "8001" + "0102030405060708" + "00000009" + "00000005" + "0003" + "626164"));
    }

    [Test]
    public void An_error_chunk_with_an_offset_holds_it_behind_the_message()
    {
        byte[] bytes = new byte[ReplyChunk.ErrorSize(ReplyForm.Structured, 3, hasOffset: true)];
        ReplyChunk.WriteError(bytes, ReplyForm.Structured, Request, 22, "bad"u8, 0x1112131415161718);
        Assert.That(
            Convert.ToHexString(bytes),
            Is.EqualTo(
                "668E33EF" + "0001" + "8002" + "0102030405060708" + "00000011" + "00000016" + "0003" + "626164" + "1112131415161718"));
    }

    [Test]
    public void A_hole_chunk_is_offset_and_size()
    {
        byte[] bytes = new byte[ReplyChunk.HoleSize(ReplyForm.Structured)];
        ReplyChunk.WriteHole(bytes, ReplyForm.Structured, Request, 0x1112131415161718, 0x21222324, done: false);
        Assert.That(
            Convert.ToHexString(bytes),
            Is.EqualTo("668E33EF" + "0000" + "0002" + "0102030405060708" + "0000000C" + "1112131415161718" + "21222324"));
    }

    [Test]
    public void An_extended_chunk_also_has_the_offset_of_the_request_and_a_length_of_64_bits()
    {
        byte[] bytes = new byte[ReplyChunk.DataSize(ReplyForm.Extended)];
        ReplyChunk.WriteData(bytes, ReplyForm.Extended, Request, 0x1112131415161718, 512, done: false);
        Assert.That(
            Convert.ToHexString(bytes),
            Is.EqualTo(
                "6E8A278C" + "0000" + "0001" + "0102030405060708" + "3132333435363738" + "0000000000000208" + "1112131415161718"));
    }
}
