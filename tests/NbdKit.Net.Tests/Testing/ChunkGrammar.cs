using System.Buffers.Binary;

namespace NbdKit.Tests.Testing;

/// <summary>
/// The rules for structured replies, applied to every reply that any test reads (S183-S185, S190-S194, S196, S226-S230,
/// S233).
/// </summary>
internal static class ChunkGrammar
{
    public static WireReply Judge(WireCall call, IReadOnlyList<WireChunk> chunks, IReadOnlyList<uint> contextIds)
    {
        var contexts = new Dictionary<uint, IReadOnlyList<WireExtent>>();
        byte[] data = [];
        bool[] covered = [];
        uint error = 0;
        string message = "";
        int contents = 0;
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
                    AddContent(call, chunk, data, covered, what);
                    contents++;
                    break;
                case ChunkType.BlockStatus:
                    Assert.That(call.Command, Is.EqualTo(Cmd.BlockStatus), what);
                    uint id = BinaryPrimitives.ReadUInt32BigEndian(payload);
                    Assert.That(contextIds, Does.Contain(id), what);
                    Assert.That(contexts.TryAdd(id, Extents(call, payload, what)), what);
                    break;
                case ChunkType.Error:
                    Assert.That(payload.Length, Is.GreaterThanOrEqualTo(6), what);
                    Assert.That(error, Is.Zero, $"a second error: {what}");
                    error = BinaryPrimitives.ReadUInt32BigEndian(payload);
                    Assert.That(payload.Length, Is.EqualTo(6 + BinaryPrimitives.ReadUInt16BigEndian(payload[4..])), what);
                    message = WireText.Check(payload[6..]);
                    Assert.That(WireError.Legal, Does.Contain(error), what);
                    break;
                default:
                    // ERROR_OFFSET is for servers that read in pieces; this one never has a good piece before a bad one.
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
            Assert.That(contexts.Keys, Is.EquivalentTo(contextIds), $"{call}: one chunk for each context");
        }
        if ((call.Flags & CmdFlag.Df) != 0)
        {
            Assert.That(contents, Is.LessThanOrEqualTo(1), $"{call}: fragmented");
        }
        return new WireReply(call)
        {
            Error = error,
            Message = message,
            Data = error == 0 ? data : [],
            Chunks = chunks,
            Contexts = contexts,
        };
    }

    private static void AddContent(WireCall call, WireChunk chunk, byte[] data, bool[] covered, string what)
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

    private static List<WireExtent> Extents(WireCall call, ReadOnlySpan<byte> payload, string what)
    {
        Assert.That(payload.Length, Is.GreaterThanOrEqualTo(12), what);
        Assert.That((payload.Length - 4) % 8, Is.Zero, what);
        Assert.That((payload.Length - 4) / 8, Is.LessThanOrEqualTo(1 << 20), what);
        var extents = new List<WireExtent>();
        ulong before = 0;
        for (int at = 4; at < payload.Length; at += 8)
        {
            var extent = new WireExtent(
                BinaryPrimitives.ReadUInt32BigEndian(payload[at..]), BinaryPrimitives.ReadUInt32BigEndian(payload[(at + 4)..]));
            if (extent.Length == 0 || (extent.Status & ~3u) != 0 || before >= call.Length)
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
