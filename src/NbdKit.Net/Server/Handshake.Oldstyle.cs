using System.Buffers.Binary;
using NbdKit.Protocol;

namespace NbdKit.Server;

// The oldstyle handshake ("Oldstyle negotiation"): the server tells about the only export there is, and transmission begins.
internal sealed partial class Handshake
{
    // NBDMAGIC 64, oldstyle magic 64, size 64, handshake flags 16, transmission flags 16, 124 bytes of zero.
    private const int OldstyleBytes = 152;

    private async ValueTask<ExportSession> OldstyleAsync()
    {
        NextContext context;
        try
        {
            context = await OpenAsync("").ConfigureAwait(false);
        }
        catch (Exception e) when (e is not ConnectionEndedException)
        {
            // There is no way to say no.
            throw new ConnectionEndedException(NbdDisconnectReason.ExportUnavailable, "the default export cannot be opened");
        }
        ExportSession session = Session(context, "");
        Span<byte> greeting = _replies.Raw(OldstyleBytes);
        BinaryPrimitives.WriteUInt64BigEndian(greeting, Magic.Init);
        BinaryPrimitives.WriteUInt64BigEndian(greeting[8..], Magic.Oldstyle);
        BinaryPrimitives.WriteInt64BigEndian(greeting[16..], session.Info.Size);
        // No handshake flag: those are of newstyle.
        BinaryPrimitives.WriteUInt16BigEndian(greeting[26..], (ushort)session.Flags);
        await EnterAsync(session).ConfigureAwait(false);
        return session;
    }
}
