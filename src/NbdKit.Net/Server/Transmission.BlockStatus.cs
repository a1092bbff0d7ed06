using System.Buffers;
using System.Buffers.Binary;
using NbdKit.Protocol;

namespace NbdKit.Server;

// NBD_CMD_BLOCK_STATUS: one chunk for each negotiated context.
internal sealed partial class Transmission
{
    // A descriptor's length has 32 bits; what is longer is cut at a border that suits every block size.
    private const long LongestDescriptor = 0xffff_0000;

    /// <summary>Asks the chain and builds the reply.</summary>
    public async ValueTask<ReplySegment> BlockStatusAsync(RequestHeader header)
    {
        var answers = new List<ExtentList>(_export.MetaContexts.Count);
        int size = 0;
        foreach (string name in _export.MetaContexts)
        {
            ExtentList extents = await AskAsync(header, name).ConfigureAwait(false);
            answers.Add(extents);
            size += ReplyChunk.Size + 4 + (8 * CountDescriptors(extents, header));
        }
        byte[] rented = ArrayPool<byte>.Shared.Rent(size);
        int at = 0;
        for (int i = 0; i < answers.Count; i++)
        {
            at += Write(rented.AsSpan(at), answers[i], header, (uint)(i + 1), done: i == answers.Count - 1);
        }
        return ReplySegment.Rented(rented, size);
    }

    private async ValueTask<ExtentList> AskAsync(RequestHeader header, string name)
    {
        NextContext context = _export.Context;
        RequestFlags flags = FlagsOf(header);
        long offset = (long)header.Offset;
        bool one = (flags & RequestFlags.RequestOne) != 0;
        var extents = new ExtentList(
            offset, _export.Info.Size, name, one ? 1 : _connection.Server.Options.MaxExtents);
        long minimum = _export.Info.BlockSize.Minimum;
        if (minimum > 1 && name == ExtentList.BaseAllocation)
        {
            await context.ExtentsAlignedAsync(offset, header.Length, minimum, extents, _connection.Aborted)
                .ConfigureAwait(false);
        }
        else
        {
            await context.ExtentsAsync(offset, header.Length, flags, extents, _connection.Aborted).ConfigureAwait(false);
        }
        return extents;
    }

    /// <summary>The descriptors that answer the request: those that begin inside it, up to the first that is cut.</summary>
    private static int CountDescriptors(ExtentList extents, in RequestHeader header)
    {
        long end = (long)header.Offset + header.Length;
        int count = 0;
        foreach (Extent extent in extents)
        {
            if (extent.Offset >= end)
            {
                break;
            }
            count++;
            if ((header.Flags & CommandFlags.RequestOne) != 0 || extent.Length > LongestDescriptor)
            {
                break;
            }
        }
        return count;
    }

    // Context id 32, then for each descriptor length 32 and status 32.
    private static int Write(Span<byte> bytes, ExtentList extents, in RequestHeader header, uint id, bool done)
    {
        int count = CountDescriptors(extents, header);
        int payload = 4 + (8 * count);
        ReplyChunk.Write(bytes, ChunkType.BlockStatus, header.Cookie, (uint)payload, done);
        bytes = bytes[ReplyChunk.Size..];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, id);
        bytes = bytes[4..];
        ulong mask = extents.MetaContext == ExtentList.BaseAllocation ? 3 : uint.MaxValue;
        for (int i = 0; i < count; i++)
        {
            long length = Math.Min(extents[i].Length, LongestDescriptor);
            if ((header.Flags & CommandFlags.RequestOne) != 0)
            {
                length = Math.Min(length, header.Length);
            }
            BinaryPrimitives.WriteUInt32BigEndian(bytes, (uint)length);
            BinaryPrimitives.WriteUInt32BigEndian(bytes[4..], (uint)((ulong)extents[i].Status & mask));
            bytes = bytes[8..];
        }
        return ReplyChunk.Size + payload;
    }
}
