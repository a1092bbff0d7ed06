using System.Buffers.Binary;
using NbdKit.Protocol;

namespace NbdKit.Server;

// NBD_CMD_BLOCK_STATUS: one chunk for each negotiated context, or for each that the request names.
internal sealed partial class Transmission
{
    // A descriptor of 32 bits is cut at a border that suits every block size.
    private const long LongestDescriptor = 0xffff_0000;

    /// <summary>Asks the chain and builds the reply. The payload, if there is one, was checked.</summary>
    public async ValueTask<ReplySegment> BlockStatusAsync(RequestHeader header, ReadOnlyMemory<byte> payload)
    {
        int count = payload.IsEmpty ? _export.MetaContexts.Count : BlockStatusPayload.Count(payload.Span);
        var answers = new List<ExtentList>(count);
        int size = 0;
        for (int i = 0; i < count; i++)
        {
            ExtentList extents = await AskAsync(header, _export.MetaContexts[(int)IdOf(payload, i) - 1]).ConfigureAwait(false);
            answers.Add(extents);
            size += ReplyChunk.SizeOf(_form) + StatusSize(CountDescriptors(extents, header));
        }
        byte[] rented = Payloads.Rent(size);
        int at = 0;
        for (int i = 0; i < count; i++)
        {
            at += Write(rented.AsSpan(at), answers[i], header, IdOf(payload, i), done: i == count - 1);
        }
        return ReplySegment.Rented(rented, size);
    }

    private static uint IdOf(ReadOnlyMemory<byte> payload, int index)
        => payload.IsEmpty ? (uint)index + 1 : BlockStatusPayload.Id(payload.Span, index);

    /// <summary>The range that a block status with a payload asks about, as if it had come without one; or what is wrong.</summary>
    private RequestFault ReadStatusPayload(ReadOnlySpan<byte> payload, ref RequestHeader header)
    {
        if (!BlockStatusPayload.HasValidIds(payload, _export.MetaContexts.Count))
        {
            return new RequestFault(
                NbdError.InvalidArgument, "the block status request names a meta context twice, or one that was not negotiated");
        }
        header = header with
        {
            Length = BlockStatusPayload.Length(payload),
            Flags = header.Flags & ~CommandFlags.PayloadLength,
        };
        return RequestValidation.Check(header, _export, _maxPayload);
    }

    private async ValueTask<ExtentList> AskAsync(RequestHeader header, string name)
    {
        NextContext context = _export.Context;
        RequestFlags flags = FlagsOf(header);
        long offset = (long)header.Offset;
        long length = (long)header.Length;
        bool one = (flags & RequestFlags.RequestOne) != 0;
        var extents = new ExtentList(
            offset, _export.Info.Size, name, one ? 1 : _connection.Server.Options.MaxExtents);
        long minimum = _export.Info.BlockSize.Minimum;
        if (minimum > 1 && name == ExtentList.BaseAllocation)
        {
            await context.ExtentsAlignedAsync(offset, length, minimum, extents, _connection.Aborted).ConfigureAwait(false);
        }
        else
        {
            await context.ExtentsAsync(offset, length, flags, extents, _connection.Aborted).ConfigureAwait(false);
        }
        return extents;
    }

    /// <summary>The descriptors that answer the request: those that begin inside it, up to the first that is cut.</summary>
    private int CountDescriptors(ExtentList extents, in RequestHeader header)
    {
        long end = (long)(header.Offset + header.Length);
        int count = 0;
        foreach (Extent extent in extents)
        {
            if (extent.Offset >= end)
            {
                break;
            }
            count++;
            if ((header.Flags & CommandFlags.RequestOne) != 0 || extent.Length > LongestHere)
            {
                break;
            }
        }
        return count;
    }

    private long LongestHere => _form == ReplyForm.Extended ? long.MaxValue : LongestDescriptor;

    private int StatusSize(int descriptors) => _form == ReplyForm.Extended ? 8 + (16 * descriptors) : 4 + (8 * descriptors);

    // Context id 32, then for each descriptor length 32 and status 32. Extended: context id 32, number of descriptors 32, then
    // for each length 64 and status 64.
    private int Write(Span<byte> bytes, ExtentList extents, in RequestHeader header, uint id, bool done)
    {
        int count = CountDescriptors(extents, header);
        int payload = StatusSize(count);
        bool isExtended = _form == ReplyForm.Extended;
        ReplyChunk.Write(
            bytes, _form, isExtended ? ChunkType.BlockStatusExtended : ChunkType.BlockStatus, header, (uint)payload, done);
        bytes = bytes[ReplyChunk.SizeOf(_form)..];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, id);
        bytes = bytes[4..];
        if (isExtended)
        {
            BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)count);
            bytes = bytes[4..];
        }
        ulong mask = MaskOf(extents.MetaContext);
        for (int i = 0; i < count; i++)
        {
            long length = Math.Min(extents[i].Length, LongestHere);
            if ((header.Flags & CommandFlags.RequestOne) != 0)
            {
                length = Math.Min(length, (long)header.Length);
            }
            ulong status = (ulong)extents[i].Status & mask;
            if (isExtended)
            {
                BinaryPrimitives.WriteInt64BigEndian(bytes, length);
                BinaryPrimitives.WriteUInt64BigEndian(bytes[8..], status);
                bytes = bytes[16..];
            }
            else
            {
                BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)length);
                BinaryPrimitives.WriteUInt32BigEndian(bytes[4..], (uint)status);
                bytes = bytes[8..];
            }
        }
        return ReplyChunk.SizeOf(_form) + payload;
    }

    private ulong MaskOf(string metaContext)
        => metaContext == ExtentList.BaseAllocation ? 3
            : _export.Info.WideMetaContexts.Contains(metaContext) ? ulong.MaxValue
            : uint.MaxValue;
}
