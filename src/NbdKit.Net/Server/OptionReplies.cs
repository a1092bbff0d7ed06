using System.Buffers;
using System.Buffers.Binary;
using System.Net.Sockets;
using System.Text;
using NbdKit.Protocol;
using NbdKit.Transports;

namespace NbdKit.Server;

/// <summary>Builds the replies to options and sends them, several at a time.</summary>
internal sealed class OptionReplies(Transport transport, StallClock stall)
{
    private const int MessageBytes = 256;

    private readonly ArrayBufferWriter<byte> _buffer = new(512);

    /// <summary>The bytes that wait to be sent.</summary>
    public int Pending => _buffer.WrittenCount;

    public void Ack(OptionType option) => Begin(option, OptionReplyType.Ack, 0);

    public void Error(OptionType option, OptionReplyType error, string message)
    {
        byte[] text = WireString.EncodeMessage(message, MessageBytes);
        text.CopyTo(Begin(option, error, text.Length));
    }

    /// <summary>NBD_REP_SERVER: name length 32, name, then the description.</summary>
    public void Server(OptionType option, string name, string description)
    {
        byte[] nameBytes = WireString.Encode(name);
        byte[] descriptionBytes = WireString.Encode(description);
        Span<byte> payload = Begin(option, OptionReplyType.Server, 4 + nameBytes.Length + descriptionBytes.Length);
        BinaryPrimitives.WriteInt32BigEndian(payload, nameBytes.Length);
        nameBytes.CopyTo(payload[4..]);
        descriptionBytes.CopyTo(payload[(4 + nameBytes.Length)..]);
    }

    /// <summary>The bytes of a reply of <see cref="Server"/>.</summary>
    public static int ServerSize(string name, string description)
        => OptionReply.Size + 4 + Encoding.UTF8.GetByteCount(name) + Encoding.UTF8.GetByteCount(description);

    /// <summary>NBD_INFO_EXPORT, 12 bytes: type 16, size 64, transmission flags 16.</summary>
    public void InfoExport(OptionType option, long size, TransmissionFlags flags)
    {
        Span<byte> payload = Begin(option, OptionReplyType.Info, 12);
        BinaryPrimitives.WriteUInt16BigEndian(payload, (ushort)InfoType.Export);
        BinaryPrimitives.WriteInt64BigEndian(payload[2..], size);
        BinaryPrimitives.WriteUInt16BigEndian(payload[10..], (ushort)flags);
    }

    /// <summary>NBD_INFO_NAME and NBD_INFO_DESCRIPTION: type 16, then the string.</summary>
    public void InfoText(OptionType option, InfoType type, string text)
    {
        byte[] bytes = WireString.Encode(text);
        Span<byte> payload = Begin(option, OptionReplyType.Info, 2 + bytes.Length);
        BinaryPrimitives.WriteUInt16BigEndian(payload, (ushort)type);
        bytes.CopyTo(payload[2..]);
    }

    /// <summary>NBD_INFO_BLOCK_SIZE, 14 bytes: type 16, minimum 32, preferred 32, maximum payload 32.</summary>
    public void InfoBlockSize(OptionType option, BlockSize size, int maxPayload)
    {
        Span<byte> payload = Begin(option, OptionReplyType.Info, 14);
        BinaryPrimitives.WriteUInt16BigEndian(payload, (ushort)InfoType.BlockSize);
        BinaryPrimitives.WriteUInt32BigEndian(payload[2..], (uint)size.Minimum);
        BinaryPrimitives.WriteUInt32BigEndian(payload[6..], (uint)size.Preferred);
        BinaryPrimitives.WriteUInt32BigEndian(payload[10..], (uint)Math.Min(size.Maximum, maxPayload));
    }

    /// <summary>NBD_REP_META_CONTEXT: context id 32, then its name.</summary>
    public void MetaContext(OptionType option, uint id, string name)
    {
        byte[] bytes = Encoding.UTF8.GetBytes(name);
        Span<byte> payload = Begin(option, OptionReplyType.MetaContext, 4 + bytes.Length);
        BinaryPrimitives.WriteUInt32BigEndian(payload, id);
        bytes.CopyTo(payload[4..]);
    }

    /// <summary>Bytes that are no option reply: the greeting, and the answer to NBD_OPT_EXPORT_NAME.</summary>
    public Span<byte> Raw(int length)
    {
        Span<byte> span = _buffer.GetSpan(length)[..length];
        span.Clear();
        _buffer.Advance(length);
        return span;
    }

    public async ValueTask SendAsync(CancellationToken cancellationToken)
    {
        if (Pending == 0)
        {
            return;
        }
        stall.Progress();
        try
        {
            await transport.SendAsync(_buffer.WrittenMemory, cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or SocketException or ObjectDisposedException or InvalidOperationException)
        {
            throw new ConnectionEndedException(NbdDisconnectReason.ConnectionLost, "the connection was lost while sending", e);
        }
        finally
        {
            stall.Stop();
        }
        _buffer.ResetWrittenCount();
    }

    private Span<byte> Begin(OptionType option, OptionReplyType type, int length)
    {
        Span<byte> reply = Raw(OptionReply.Size + length);
        OptionReply.Write(reply, option, type, (uint)length);
        return reply[OptionReply.Size..];
    }
}
