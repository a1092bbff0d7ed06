using System.Buffers.Binary;

namespace NbdKit.Tests.Testing;

/// <summary>
/// The rules for structured replies, applied to every reply that any test reads (S183-S185, S190-S194, S196, S226-S230,
/// S233).
/// </summary>
internal sealed class ChunkGrammar(WireCall call, IReadOnlyList<uint> contextIds, bool isExtended)
{
    /// <summary>Whether contexts may be others than base:allocation, whose status is not known here.</summary>
    private bool Unknown => contextIds.Count > 1;

    public WireReply Judge(IReadOnlyList<WireChunk> chunks)
    {
        var contexts = new Dictionary<uint, IReadOnlyList<WireExtent>>();
        byte[] data = [];
        bool[] covered = [];
        uint error = 0;
        string message = "";
        int contents = 0;
        ulong valid = 0;
        foreach (WireChunk chunk in chunks)
        {
            string what = $"{call}: chunk type 0x{chunk.Type:x} of {chunk.Payload.Length} bytes";
            ReadOnlySpan<byte> payload = chunk.Payload;
            switch (chunk.Type)
            {
                case ChunkType.None:
                    Assert.That(payload.Length, Is.Zero, what);
                    Assert.That(chunk.IsDone, what);
                    break;
                case ChunkType.OffsetData or ChunkType.OffsetHole:
                    Assert.That(call.Command, Is.EqualTo(Cmd.Read), what);
                    if (data.Length == 0)
                    {
                        data = new byte[call.Length];
                        covered = new bool[call.Length];
                    }
                    AddContent(chunk, data, covered, what);
                    contents++;
                    break;
                case ChunkType.BlockStatus or ChunkType.BlockStatusExtended:
                    Assert.That(call.Command, Is.EqualTo(Cmd.BlockStatus), what);
                    Assert.That(chunk.Type == ChunkType.BlockStatusExtended, Is.EqualTo(isExtended), what);
                    uint id = BinaryPrimitives.ReadUInt32BigEndian(payload);
                    Assert.That(contextIds, Does.Contain(id), what);
                    Assert.That(contexts.TryAdd(id, Extents(payload, what)), what);
                    break;
                case ChunkType.Error:
                    Assert.That(payload.Length, Is.GreaterThanOrEqualTo(6), what);
                    Assert.That(error, Is.Zero, $"a second error: {what}");
                    error = BinaryPrimitives.ReadUInt32BigEndian(payload);
                    Assert.That(payload.Length, Is.EqualTo(6 + BinaryPrimitives.ReadUInt16BigEndian(payload[4..])), what);
                    message = WireText.Check(payload[6..]);
                    Assert.That(WireError.Legal, Does.Contain(error), what);
                    break;
                case ChunkType.ErrorOffset:
                    Assert.That(call.Command, Is.EqualTo(Cmd.Read), what);
                    Assert.That(payload.Length, Is.GreaterThanOrEqualTo(14), what);
                    Assert.That(error, Is.Zero, $"a second error: {what}");
                    error = BinaryPrimitives.ReadUInt32BigEndian(payload);
                    Assert.That(payload.Length, Is.EqualTo(14 + BinaryPrimitives.ReadUInt16BigEndian(payload[4..])), what);
                    Assert.That(WireError.Legal, Does.Contain(error), what);
                    message = WireText.Check(payload[6..^8]);
                    valid = BinaryPrimitives.ReadUInt64BigEndian(payload[^8..]) - call.Offset;
                    Assert.That(valid, Is.LessThan(call.Length), $"the error is outside the request: {what}");
                    Assert.That(covered.AsSpan(0, (int)valid).IndexOf(false), Is.EqualTo(-1), $"{what}: a part before the error is missing");
                    break;
                default:
                    Assert.Fail($"an unexpected chunk: {what}");
                    break;
            }
        }
        if (error == 0 && call.Command == Cmd.Read)
        {
            Assert.That(covered.Length, Is.EqualTo(call.Length), $"{call}: no content");
            Assert.That(covered.AsSpan().IndexOf(false), Is.EqualTo(-1), $"{call}: a part of the range is missing");
        }
        if (error == 0 && call.Command == Cmd.BlockStatus && call.Length > 0)
        {
            IEnumerable<uint> asked = call.Contexts ?? contextIds;
            Assert.That(contexts.Keys, Is.EquivalentTo(asked), $"{call}: one chunk for each context");
        }
        if ((call.Flags & CmdFlag.Df) != 0)
        {
            Assert.That(contents, Is.LessThanOrEqualTo(1), $"{call}: fragmented");
        }
        return new WireReply(call)
        {
            Error = error,
            Message = message,
            Data = error == 0 ? data : data[..(int)valid],
            Chunks = chunks,
            Contexts = contexts,
        };
    }

    private void AddContent(WireChunk chunk, byte[] data, bool[] covered, string what)
    {
        ReadOnlySpan<byte> payload = chunk.Payload;
        bool isData = chunk.Type == ChunkType.OffsetData;
        Assert.That(payload.Length, isData ? Is.GreaterThanOrEqualTo(9) : Is.EqualTo(12), what);
        ulong offset = BinaryPrimitives.ReadUInt64BigEndian(payload);
        long length = isData ? payload.Length - 8 : BinaryPrimitives.ReadUInt32BigEndian(payload[8..]);
        Assert.That(length, Is.GreaterThan(0), what);
        Assert.That(offset, Is.GreaterThanOrEqualTo(call.Offset), what);
        Assert.That(offset - call.Offset, Is.LessThanOrEqualTo(call.Length), what);
        Assert.That((ulong)length, Is.LessThanOrEqualTo(call.Length - (offset - call.Offset)), what);
        Span<bool> range = covered.AsSpan((int)(offset - call.Offset), (int)length);
        Assert.That(range.IndexOf(true), Is.EqualTo(-1), $"{what}: overlaps");
        range.Fill(true);
        if (isData)
        {
            payload[8..].CopyTo(data.AsSpan((int)(offset - call.Offset)));
        }
    }

    private List<WireExtent> Extents(ReadOnlySpan<byte> payload, string what)
    {
        int head = isExtended ? 8 : 4;
        int size = isExtended ? 16 : 8;
        Assert.That(payload.Length, Is.GreaterThanOrEqualTo(head + size), what);
        Assert.That((payload.Length - head) % size, Is.Zero, what);
        int count = (payload.Length - head) / size;
        Assert.That(count, Is.LessThanOrEqualTo(1 << 20), what);
        if (isExtended)
        {
            Assert.That(BinaryPrimitives.ReadUInt32BigEndian(payload[4..]), Is.EqualTo((uint)count), what);
        }
        var extents = new List<WireExtent>();
        ulong before = 0;
        ulong known = Unknown ? ulong.MaxValue : 3;
        for (int at = head; at < payload.Length; at += size)
        {
            WireExtent extent = isExtended
                ? new(BinaryPrimitives.ReadUInt64BigEndian(payload[at..]), BinaryPrimitives.ReadUInt64BigEndian(payload[(at + 8)..]))
                : new(BinaryPrimitives.ReadUInt32BigEndian(payload[at..]), BinaryPrimitives.ReadUInt32BigEndian(payload[(at + 4)..]));
            if (extent.Length == 0 || (extent.Status & ~known) != 0 || before >= call.Length)
            {
                Assert.Fail($"{what}: extent {extent} after {before} bytes");
            }
            before += extent.Length;
            extents.Add(extent);
        }
        if ((call.Flags & CmdFlag.ReqOne) != 0)
        {
            Assert.That(extents, Has.Count.EqualTo(1), what);
            Assert.That(extents[0].Length, Is.LessThanOrEqualTo(call.Length), what);
        }
        return extents;
    }
}
