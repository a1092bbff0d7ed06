using System.Buffers.Binary;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>A structured reply of which some chunks have come.</summary>
internal sealed class PartialReply(
    WireCall call, Dictionary<uint, string> contexts, bool extended, Func<ulong, ulong, bool>? isZero)
{
    private readonly List<(ulong From, ulong To)> _content = [];
    private readonly HashSet<uint> _reported = [];
    private uint _error;

    public WireCall Call => call;

    public void Add(ushort type, ReadOnlySpan<byte> payload)
    {
        string what = $"{call}: a chunk of type 0x{type:x} and {payload.Length} bytes";
        switch (type)
        {
            case ChunkType.None:
                MutationException.Require(payload.Length == 0, what);
                break;
            case ChunkType.OffsetData when call.Command == Cmd.Read && payload.Length > 8:
                ulong offset = BinaryPrimitives.ReadUInt64BigEndian(payload);
                AddContent(offset, (ulong)payload.Length - 8, what);
                CheckData(offset, payload[8..]);
                break;
            case ChunkType.OffsetHole when call.Command == Cmd.Read && payload.Length == 12:
                ulong hole = BinaryPrimitives.ReadUInt64BigEndian(payload);
                uint length = BinaryPrimitives.ReadUInt32BigEndian(payload[8..]);
                AddContent(hole, length, what);
                MutationException.Require(isZero?.Invoke(hole, length) == true, $"{what}: no layer said so");
                break;
            case ChunkType.BlockStatus when call.Command == Cmd.BlockStatus && !extended:
            case ChunkType.BlockStatusExtended when call.Command == Cmd.BlockStatus && extended:
                AddStatus(payload, what);
                break;
            case ChunkType.Error:
            case ChunkType.ErrorOffset when call.Command == Cmd.Read:
                AddError(payload, type == ChunkType.ErrorOffset ? 8 : 0, what);
                break;
            default:
                throw new MutationException($"out of place: {what}");
        }
    }

    /// <summary>All chunks are here, the last of this type; whether the request succeeded.</summary>
    public bool Finish(ushort last)
    {
        bool isData = call.Command is Cmd.Read or Cmd.BlockStatus;
        MutationException.Require(
            _error != 0 || isData || last == ChunkType.None, $"{call}: the last chunk is of type 0x{last:x}");
        if (_error == 0 && call.Command == Cmd.Read)
        {
            ulong sum = _content.Aggregate(0UL, (all, part) => all + (part.To - part.From));
            MutationException.Require(sum == call.Length, $"{call}: {sum} bytes came");
        }
        if (_error == 0 && call.Command == Cmd.BlockStatus)
        {
            IEnumerable<uint> asked = call.Contexts ?? (IEnumerable<uint>)contexts.Keys;
            MutationException.Require(
                call.Length > 0 && _reported.SetEquals(asked), $"{call}: contexts {string.Join(",", _reported)} were reported");
        }
        MutationException.Require(
            (call.Flags & CmdFlag.Df) == 0 || call.Command != Cmd.Read || _content.Count <= 1, $"{call}: fragmented");
        return _error == 0;
    }

    /// <summary>Data of a read must be what the export holds there; zeroes only where a layer said that it holds zeroes.</summary>
    public void CheckData(ulong offset, ReadOnlySpan<byte> data)
    {
        for (int i = 0; i < data.Length; i++)
        {
            ulong at = offset + (uint)i;
            if (data[i] != MutantPlugin.At(at) && !(data[i] == 0 && isZero?.Invoke(at, 1) == true))
            {
                throw new MutationException($"{call}: the byte at {at} is 0x{data[i]:x2}");
            }
        }
    }

    private void AddContent(ulong offset, ulong length, string what)
    {
        MutationException.Require(
            length > 0 && offset >= call.Offset && offset - call.Offset <= call.Length && length <= call.Length - (offset - call.Offset),
            $"{what}, of {length} bytes at {offset}");
        MutationException.Require(_content.All(part => offset + length <= part.From || offset >= part.To), $"{what} overlaps");
        _content.Add((offset, offset + length));
    }

    private void AddStatus(ReadOnlySpan<byte> payload, string what)
    {
        int head = extended ? 8 : 4;
        int size = extended ? 16 : 8;
        MutationException.Require(payload.Length >= head + size && (payload.Length - head) % size == 0, what);
        uint id = BinaryPrimitives.ReadUInt32BigEndian(payload);
        MutationException.Require(contexts.TryGetValue(id, out string? name) && _reported.Add(id), $"{what}, context {id}");
        MutationException.Require(
            !extended || BinaryPrimitives.ReadUInt32BigEndian(payload[4..]) == (uint)(payload.Length - head) / (uint)size, what);
        ulong known = name == ExtentList.BaseAllocation ? 3UL : uint.MaxValue;
        ulong before = 0;
        for (ReadOnlySpan<byte> rest = payload[head..]; rest.Length > 0; rest = rest[size..])
        {
            ulong length = extended ? BinaryPrimitives.ReadUInt64BigEndian(rest) : BinaryPrimitives.ReadUInt32BigEndian(rest);
            ulong status = extended ? BinaryPrimitives.ReadUInt64BigEndian(rest[8..]) : BinaryPrimitives.ReadUInt32BigEndian(rest[4..]);
            MutationException.Require(
                length > 0 && length <= long.MaxValue && (status & ~known) == 0 && before < call.Length,
                $"{what}: {length} bytes of status 0x{status:x} after {before}");
            before += length;
            MutationException.Require(call.Offset + before <= 1UL << 63, $"{what} ends at {call.Offset + before}");
        }
        MutationException.Require(
            (call.Flags & CmdFlag.ReqOne) == 0 || (payload.Length == head + size && before <= call.Length), $"{what} for one extent");
    }

    private void AddError(ReadOnlySpan<byte> payload, int behind, string what)
    {
        MutationException.Require(payload.Length >= 6 + behind && _error == 0, what);
        _error = BinaryPrimitives.ReadUInt32BigEndian(payload);
        MutationException.Require(
            WireError.Legal.Contains(_error) && payload.Length == 6 + behind + BinaryPrimitives.ReadUInt16BigEndian(payload[4..]), what);
        WireText.Check(payload[6..^behind]);
    }
}
