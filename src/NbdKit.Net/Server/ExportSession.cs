using NbdKit.Protocol;

namespace NbdKit.Server;

/// <summary>What a client got when it entered transmission: the opened chain and everything negotiated about it.</summary>
internal sealed record ExportSession(
    NextContext Context,
    TransmissionFlags Flags,
    ReplyForm Replies,
    IReadOnlyList<string> MetaContexts)
{
    /// <summary>Whether a write with an extended header has a payload only if its flags say so.</summary>
    public bool RequirePayloadFlag { get; init; }

    /// <summary>What the context is, or the part of it that the client was told about.</summary>
    public NbdExportInfo Info { get; init; } = Context.Info;

    /// <summary>The flags that tell a client what an export can do ("Transmission flags").</summary>
    public static TransmissionFlags FlagsFor(NbdExportInfo info, ThreadModel model, ReplyForm replies, bool hasMetaContexts)
    {
        TransmissionFlags flags = TransmissionFlags.HasFlags;
        Add(!info.CanWrite, TransmissionFlags.ReadOnly);
        Add(info.CanZero != Support.None, TransmissionFlags.SendWriteZeroes);
        Add(info.CanFastZero, TransmissionFlags.SendFastZero);
        Add(info.CanTrim, TransmissionFlags.SendTrim);
        Add(info.CanFua != Support.None, TransmissionFlags.SendFua);
        Add(info.CanFlush, TransmissionFlags.SendFlush);
        Add(info.IsRotational, TransmissionFlags.Rotational);
        // A chain that takes one connection at a time would let the second one of a client wait for ever.
        Add(info.CanMultiConn && model > ThreadModel.SerializeConnections, TransmissionFlags.CanMultiConn);
        Add(info.CanCache != Support.None, TransmissionFlags.SendCache);
        Add(replies != ReplyForm.Simple, TransmissionFlags.SendDf);
        Add(replies == ReplyForm.Extended && hasMetaContexts, TransmissionFlags.BlockStatusPayload);
        return flags;

        void Add(bool condition, TransmissionFlags flag) => flags |= condition ? flag : TransmissionFlags.None;
    }
}
