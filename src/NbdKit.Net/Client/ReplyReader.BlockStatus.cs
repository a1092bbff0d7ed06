using System.Buffers.Binary;
using NbdKit.Protocol;

namespace NbdKit.Client;

// NBD_REPLY_TYPE_BLOCK_STATUS: context 32, then for each extent length 32 and status 32.
// NBD_REPLY_TYPE_BLOCK_STATUS_EXT: context 32, count 32, then for each extent length 64 and status 64.
internal sealed partial class ReplyReader
{
    private async ValueTask ReadBlockStatusAsync(
        PendingCommand command, bool extended, long length, CancellationToken cancellationToken)
    {
        if (command.Status is not { } status)
        {
            throw Violation($"it sent a block status in reply to a command of type {(ushort)command.Type}");
        }
        if (extended != session.ExtendedHeaders)
        {
            throw Violation("a block status has the form that was not negotiated");
        }
        int head = extended ? 8 : 4;
        int each = extended ? 16 : 8;
        if (length < head + each || (length - head) % each != 0)
        {
            throw Violation($"a block status has {length} bytes of payload");
        }
        long count = (length - head) / each;
        if (count > options.MaxExtents - status.Descriptors)
        {
            throw new NbdClientException(
                NbdClientError.LimitExceeded, $"The server sent more than {options.MaxExtents} extents in a reply.");
        }
        uint context = (uint)await ReadNumberAsync(4, cancellationToken).ConfigureAwait(false);
        if (extended && (long)await ReadNumberAsync(4, cancellationToken).ConfigureAwait(false) != count)
        {
            throw Violation("the number of extents does not match the payload of a block status");
        }
        if (!session.MetaContexts.TryGetValue(context, out string? name) || (status.Only ?? context) != context)
        {
            throw Violation($"a block status is for the context {context}, which was not asked for");
        }
        if (!status.TryBeginContext(context))
        {
            throw Violation($"a block status for the context {context} came twice");
        }
        bool one = (command.Flags & CommandFlags.RequestOne) != 0;
        if (one && count > 1)
        {
            throw Violation("more than one extent where one was asked for");
        }
        long most = one ? command.Length : long.MaxValue - command.Offset;
        ulong known = extended && name == ExtentList.BaseAllocation ? uint.MaxValue : ulong.MaxValue;
        while (count-- > 0)
        {
            await NeedAsync(each, cancellationToken).ConfigureAwait(false);
            most -= ReadExtent(status, extended, most, known);
        }
    }

    private long ReadExtent(BlockStatusReply status, bool extended, long most, ulong known)
    {
        ReadOnlySpan<byte> bytes = _input.Buffered.Span;
        ulong length = extended ? BinaryPrimitives.ReadUInt64BigEndian(bytes) : BinaryPrimitives.ReadUInt32BigEndian(bytes);
        ulong value = extended
            ? BinaryPrimitives.ReadUInt64BigEndian(bytes[8..])
            : BinaryPrimitives.ReadUInt32BigEndian(bytes[4..]);
        _input.Advance(extended ? 16 : 8);
        if (length == 0)
        {
            throw Violation("an extent of no bytes");
        }
        if (length > (ulong)most)
        {
            throw Violation($"an extent of {length} bytes is longer than can be");
        }
        if ((value & ~known) != 0)
        {
            throw Violation($"the status 0x{value:x} has bits that this context does not have");
        }
        status.Add((long)length, value);
        return (long)length;
    }
}
