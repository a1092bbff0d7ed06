using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Cutting;

/// <summary>The sessions that are cut: what a client says, and what a server says, for each form of the protocol.</summary>
internal static class CutSession
{
    /// <summary>NBD_OPT_EXPORT_NAME; then NBD_OPT_GO with simple replies, structured replies and contexts, extended headers and contexts.</summary>
    public const int Forms = 4;

    public const int ExportName = 0;
    public const int Simple = 1;
    public const int Structured = 2;
    public const int Extended = 3;

    /// <summary>What the client asks for: all commands. The n-th has the n-th cookie of our client.</summary>
    public static readonly (ushort Command, int Offset, int Length)[] Requests =
    [
        (Cmd.Read, 4096, 64),
        (Cmd.Write, 0, 100),
        (Cmd.Flush, 0, 0),
        (Cmd.Read, 8192, 300),
        (Cmd.Trim, 0, 512),
        (Cmd.WriteZeroes, 512, 512),
        (Cmd.Cache, 0, 4096),
        (Cmd.BlockStatus, 0, 32_768),
    ];

    /// <summary>The requests of a form: a block status takes a context.</summary>
    public static int RequestsOf(int form) => form >= Structured ? Requests.Length : Requests.Length - 1;

    /// <summary>All that a client sends, and where the handshake ends.</summary>
    public static (byte[] Bytes, int Handshake) OfClient(int form)
    {
        bool extended = form == Extended;
        List<WireMessage> messages = [new WireMessage().U32(FieldKind.Flags, 3)];
        if (form >= Structured)
        {
            messages.Add(WireMessage.Option(extended ? Opt.ExtendedHeaders : Opt.StructuredReply));
            messages.Add(WireMessage.Option(Opt.SetMeta).Text("").U32(FieldKind.Number, 1).Text("base:allocation").Repair());
        }
        messages.Add(form == ExportName
            ? WireMessage.Option(Opt.ExportName)
            : WireMessage.Option(Opt.Go).Text("").U16(FieldKind.Number, 1).U16(FieldKind.Type, InfoType.BlockSize).Repair());
        int handshake = Mutator.Join(messages).Length;
        messages.AddRange(MessagesOf(form));
        messages.Add(WireMessage.Request(extended, Cmd.Disc, 0, 0, 0, 0));
        return (Mutator.Join(messages), handshake);
    }

    /// <summary>The requests.</summary>
    public static List<WireMessage> MessagesOf(int form)
    {
        bool extended = form == Extended;
        var messages = new List<WireMessage>();
        for (int i = 0; i < RequestsOf(form); i++)
        {
            (ushort command, int offset, int length) = Requests[i];
            ushort flags = extended && command == Cmd.Write ? CmdFlag.PayloadLength : CmdFlag.None;
            WireMessage request = WireMessage.Request(extended, command, flags, (ulong)i, (ulong)offset, (ulong)length);
            messages.Add(command == Cmd.Write ? request.Payload(new byte[length]) : request);
        }
        return messages;
    }

    /// <summary>Whether a client that stops there is idle: behind the handshake, or a request.</summary>
    public static bool IsBetweenRequests(int form, int at, int handshake)
    {
        int end = handshake;
        foreach (WireMessage message in MessagesOf(form))
        {
            if (at == end)
            {
                return true;
            }
            end += message.Fields.Sum(field => field.Bytes.Length);
        }
        return at == end;
    }

    /// <summary>All that a server sends, where the handshake ends, and where each reply does.</summary>
    public static (byte[] Bytes, int Handshake, List<int> Replies) OfServer(int form)
    {
        var speech = new ClientForm((byte)(form < Structured ? 0 : form));
        List<WireMessage> messages = form == ExportName
            ?
            [
                new WireMessage().U64(FieldKind.Magic, Magic.Nbd).U64(FieldKind.Magic, Magic.IHaveOpt).U16(FieldKind.Flags, 0),
                new WireMessage().U64(FieldKind.Number, ServerSpeech.Size)
                    .U16(FieldKind.Flags, TxFlag.HasFlags | TxFlag.SendFlush | TxFlag.SendTrim | TxFlag.SendWriteZeroes | TxFlag.SendCache)
                    .Add(FieldKind.Data, new byte[124]),
            ]
            : ServerSpeech.Handshake(new Random(4), speech);
        int handshake = Mutator.Join(messages).Length;
        var replies = new List<int>();
        for (int i = 0; i < RequestsOf(form); i++)
        {
            (ushort command, int offset, int length) = Requests[i];
            messages.AddRange(ReplySpeech.Reply(
                new Random(i), speech, ((ulong)(i + 1) << 32) | (uint)i, new ClientCall(command, offset, length)));
            replies.Add(Mutator.Join(messages).Length);
        }
        return (Mutator.Join(messages), handshake, replies);
    }
}
