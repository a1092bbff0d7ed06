using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>Writes what a server says to the client of <see cref="ReplyTarget"/>, as fields.</summary>
internal static class ServerSpeech
{
    public const ulong Size = 1 << 20;

    private const uint ContextId = 7;

    /// <summary>The greeting and the replies to the options that the client sends.</summary>
    /// <param name="random">Decides what may be one way or another.</param>
    /// <param name="form">0 simple, 1 structured replies, 2 with base:allocation, 3 extended headers with base:allocation.</param>
    public static List<WireMessage> Handshake(Random random, int form)
    {
        List<WireMessage> messages =
        [
            new WireMessage().U64(FieldKind.Magic, Magic.Nbd).U64(FieldKind.Magic, Magic.IHaveOpt).U16(FieldKind.Flags, 3),
        ];
        if (form > 0)
        {
            messages.Add(WireMessage.OptionReply(form == 3 ? Opt.ExtendedHeaders : Opt.StructuredReply, Rep.Ack));
        }
        if (form >= 2)
        {
            messages.Add(WireMessage.OptionReply(Opt.SetMeta, Rep.MetaContext)
                .U32(FieldKind.Number, ContextId).Add(FieldKind.Text, "base:allocation"u8.ToArray()).Repair());
            messages.Add(WireMessage.OptionReply(Opt.SetMeta, Rep.Ack));
        }
        messages.Add(WireMessage.OptionReply(Opt.Go, Rep.Info)
            .U16(FieldKind.Type, InfoType.Export).U64(FieldKind.Number, Size)
            .U16(FieldKind.Flags, TxFlag.HasFlags | TxFlag.SendFlush | TxFlag.SendFua | TxFlag.SendTrim | TxFlag.SendWriteZeroes
                | TxFlag.SendDf | TxFlag.SendCache).Repair());
        if (random.Next(2) == 0)
        {
            messages.Add(WireMessage.OptionReply(Opt.Go, Rep.Info)
                .U16(FieldKind.Type, InfoType.BlockSize).U32(FieldKind.Number, 1).U32(FieldKind.Number, 4096)
                .U32(FieldKind.Number, 32 << 20).Repair());
        }
        if (random.Next(2) == 0)
        {
            messages.Add(WireMessage.OptionReply(Opt.Go, Rep.Info)
                .U16(FieldKind.Type, InfoType.Description).Add(FieldKind.Text, "a disk"u8.ToArray()).Repair());
        }
        messages.Add(WireMessage.OptionReply(Opt.Go, Rep.Ack));
        return messages;
    }

    /// <summary>The reply to a request, in one of the ways that there are.</summary>
    public static List<WireMessage> Reply(Random random, int form, ulong cookie, ushort command, ulong offset, uint length)
    {
        bool extended = form == 3;
        if (form == 0 || (form < 3 && command is not (Cmd.Read or Cmd.BlockStatus)))
        {
            WireMessage simple = new WireMessage().U32(FieldKind.Magic, Magic.SimpleReply).U32(FieldKind.Number, 0)
                .U64(FieldKind.Cookie, cookie);
            return [command == Cmd.Read ? simple.Add(FieldKind.Data, Data(offset, length)) : simple];
        }
        switch (command)
        {
            case Cmd.Read when random.Next(2) == 0:
                uint part = length / 2;
                return
                [
                    WireMessage.Chunk(extended, 0, ChunkType.OffsetData, cookie, offset)
                        .U64(FieldKind.Number, offset + part).Add(FieldKind.Data, Data(offset + part, length - part)).Repair(),
                    WireMessage.Chunk(extended, 1, ChunkType.OffsetHole, cookie, offset)
                        .U64(FieldKind.Number, offset).U32(FieldKind.Number, part).Repair(),
                ];
            case Cmd.Read:
                return
                [
                    WireMessage.Chunk(extended, 1, ChunkType.OffsetData, cookie, offset)
                        .U64(FieldKind.Number, offset).Add(FieldKind.Data, Data(offset, length)).Repair(),
                ];
            case Cmd.BlockStatus:
                WireMessage status = WireMessage.Chunk(
                    extended, 1, extended ? ChunkType.BlockStatusExtended : ChunkType.BlockStatus, cookie, offset)
                    .U32(FieldKind.Number, ContextId);
                return
                [
                    (extended
                        ? status.U32(FieldKind.Number, 2)
                            .U64(FieldKind.Number, length / 2).U64(FieldKind.Flags, 0)
                            .U64(FieldKind.Number, length - (length / 2)).U64(FieldKind.Flags, 3)
                        : status.U32(FieldKind.Number, length / 2).U32(FieldKind.Flags, 0)
                            .U32(FieldKind.Number, length - (length / 2)).U32(FieldKind.Flags, 3)).Repair(),
                ];
            default:
                return [WireMessage.Chunk(extended, 1, ChunkType.None, cookie, offset)];
        }
    }

    /// <summary>A chunk that fails a request.</summary>
    public static WireMessage Error(int form, ulong cookie, ulong offset)
        => WireMessage.Chunk(form == 3, 1, ChunkType.Error, cookie, offset)
            .U32(FieldKind.Number, 5).U16(FieldKind.Length, 3).Add(FieldKind.Text, "bad"u8.ToArray()).Repair();

    private static byte[] Data(ulong offset, uint length)
    {
        byte[] data = new byte[length];
        for (int i = 0; i < data.Length; i++)
        {
            data[i] = MutantPlugin.At(offset + (uint)i);
        }
        return data;
    }
}
