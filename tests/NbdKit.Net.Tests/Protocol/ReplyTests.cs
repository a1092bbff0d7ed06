using NbdKit.Protocol;

namespace NbdKit.Tests.Protocol;

/// <summary>What the server writes, byte for byte: replies to options, simple replies, chunks.</summary>
public sealed class ReplyTests
{
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
        ReplyChunk.Write(bytes, ChunkType.BlockStatus, 0x0102030405060708, 12, done);
        Assert.That(Convert.ToHexString(bytes), Is.EqualTo("668E33EF" + flags + "0005" + "0102030405060708" + "0000000C"));
    }

    [Test]
    public void A_data_chunk_counts_its_offset_in_its_length()
    {
        byte[] bytes = new byte[ReplyChunk.DataSize];
        ReplyChunk.WriteData(bytes, 1, 0x1112131415161718, 512);
        Assert.That(
            Convert.ToHexString(bytes),
            Is.EqualTo("668E33EF" + "0001" + "0001" + "0000000000000001" + "00000208" + "1112131415161718"));
    }

    [Test]
    public void An_error_chunk_holds_its_message()
    {
        byte[] bytes = new byte[ReplyChunk.ErrorSize + 3];
        ReplyChunk.WriteError(bytes, 1, 5, "bad"u8);
        Assert.That(
            Convert.ToHexString(bytes),
            Is.EqualTo("668E33EF" + "0001" + "8001" + "0000000000000001" + "00000009" + "00000005" + "0003" + "626164"));
    }
}
