using NbdKit.Protocol;

namespace NbdKit.Server;

/// <summary>
/// Every refusal of a request, in the order in which they are checked: unknown command, read-only, flags, capability, range,
/// alignment, size. Wire values are compared as unsigned 64-bit numbers; nothing is cast before it is known to fit.
/// </summary>
internal static class RequestValidation
{
    public static RequestFault Check(in RequestHeader header, ExportSession export, int maxPayload)
    {
        NbdExportInfo info = export.Info;
        TransmissionFlags can = export.Flags;
        CommandType type = header.Type;
        if (type > CommandType.BlockStatus || type == CommandType.Disconnect)
        {
            return Invalid("unknown command");
        }
        bool changes = type is CommandType.Write or CommandType.Trim or CommandType.WriteZeroes;
        if (changes && (can & TransmissionFlags.ReadOnly) != 0)
        {
            return new(NbdError.PermissionDenied, "the export is read-only");
        }
        RequestFault flagFault = CheckFlags(header, can, export);
        if (flagFault.IsFault)
        {
            return flagFault;
        }
        TransmissionFlags needed = type switch
        {
            CommandType.Flush => TransmissionFlags.SendFlush,
            CommandType.Trim => TransmissionFlags.SendTrim,
            CommandType.WriteZeroes => TransmissionFlags.SendWriteZeroes,
            CommandType.Cache => TransmissionFlags.SendCache,
            _ => TransmissionFlags.HasFlags,
        };
        if ((can & needed) == 0)
        {
            return Invalid("the command was not offered");
        }
        if (type == CommandType.Flush)
        {
            return header.Offset == 0 && header.Length == 0 ? default : Invalid("a flush has no range");
        }
        if (type == CommandType.BlockStatus && export.MetaContexts.Count == 0)
        {
            return Invalid("no meta context was negotiated for this export");
        }
        if (type == CommandType.BlockStatus && (header.Flags & CommandFlags.PayloadLength) != 0)
        {
            // The range is in the payload, and checked when that is here.
            return BlockStatusPayload.IsPlausible(header.Length, export.MetaContexts.Count)
                ? default
                : Invalid("the payload of the block status request does not have the right size");
        }
        ulong size = (ulong)info.Size;
        if (header.Offset > size || header.Length > size - header.Offset)
        {
            return type is CommandType.Write or CommandType.WriteZeroes
                ? new(NbdError.NoSpace, "the request goes beyond the end of the export")
                : Invalid("the request goes beyond the end of the export");
        }
        return CheckBlockSize(header, info, size, maxPayload);
    }

    private static RequestFault CheckFlags(in RequestHeader header, TransmissionFlags can, ExportSession export)
    {
        CommandFlags allowed = header.Type switch
        {
            CommandType.Read => (can & TransmissionFlags.SendDf) != 0 ? CommandFlags.DontFragment : CommandFlags.None,
            CommandType.WriteZeroes => (can & TransmissionFlags.SendFastZero) != 0
                ? CommandFlags.NoHole | CommandFlags.FastZero
                : CommandFlags.NoHole,
            CommandType.BlockStatus => (can & TransmissionFlags.BlockStatusPayload) != 0
                ? CommandFlags.RequestOne | CommandFlags.PayloadLength
                : CommandFlags.RequestOne,
            CommandType.Write when export.Replies == ReplyForm.Extended => CommandFlags.PayloadLength,
            _ => CommandFlags.None,
        };
        if ((can & TransmissionFlags.SendFua) != 0)
        {
            // To be accepted with every command; it means something for those that change data.
            allowed |= CommandFlags.Fua;
        }
        if (export is { Replies: ReplyForm.Extended, RequirePayloadFlag: true }
            && header.Type == CommandType.Write
            && (header.Flags & CommandFlags.PayloadLength) == 0)
        {
            return Invalid("a write with an extended header needs the flag that says that it has a payload");
        }
        return (header.Flags & ~allowed) == 0 ? default : Invalid("a command flag is unknown, not allowed here, or was not offered");
    }

    private static RequestFault CheckBlockSize(in RequestHeader header, NbdExportInfo info, ulong size, int maxPayload)
    {
        BlockSize blockSize = info.BlockSizeIsAdvice ? default : info.BlockSize;
        ulong mask = blockSize.Minimum > 1 ? (ulong)blockSize.Minimum - 1 : 0;
        // A request that ends with the export may be short: otherwise the tail of an odd size could not be reached.
        if ((header.Offset & mask) != 0
            || ((header.Length & mask) != 0 && header.Offset + header.Length != size))
        {
            return Invalid("the request is not aligned to the minimum block size");
        }
        if (header.Type is CommandType.Read or CommandType.Write)
        {
            long maximum = blockSize.Maximum > 0 ? Math.Min(blockSize.Maximum, maxPayload) : maxPayload;
            if (header.Length > (ulong)maximum)
            {
                return Invalid("the request is larger than the maximum block size");
            }
        }
        return header.Type == CommandType.BlockStatus && header.Length == 0
            ? Invalid("a block status request needs a length")
            : default;
    }

    private static RequestFault Invalid(string message) => new(NbdError.InvalidArgument, message);
}
