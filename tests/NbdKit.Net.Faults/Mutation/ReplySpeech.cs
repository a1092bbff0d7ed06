using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>Writes what a server replies to the requests of the client of <see cref="ReplyTarget"/>, as fields.</summary>
internal static class ReplySpeech
{
    private static readonly uint[] Errors = [5, 22, 28, 75, 95, 108, 9999];

    /// <summary>The reply to a request, in one of the ways that there are.</summary>
    public static List<WireMessage> Reply(Random random, ClientForm form, ulong cookie, ClientCall call)
    {
        bool isRead = call.Command == Cmd.Read;
        if (!form.IsStructured || (!form.IsExtended && !isRead && call.Command != Cmd.BlockStatus))
        {
            WireMessage simple = new WireMessage().U32(FieldKind.Magic, Magic.SimpleReply).U32(FieldKind.Number, 0)
                .U64(FieldKind.Cookie, cookie);
            return [isRead ? simple.Add(FieldKind.Data, Data(call.Offset, call.Length)) : simple];
        }
        WireMessage Chunk(ushort type) => WireMessage.Chunk(form.IsExtended, type, cookie, (ulong)call.Offset);
        List<WireMessage> chunks = call.Command switch
        {
            Cmd.Read => Content(random, call, Chunk),
            Cmd.BlockStatus => Status(form, call, Chunk),
            _ => [],
        };
        if (chunks.Count == 0 || (isRead && random.Next(4) == 0))
        {
            chunks.Add(Chunk(ChunkType.None));
        }
        return Done(chunks);
    }

    /// <summary>A reply that fails a request, after a part of it was answered or at once.</summary>
    public static List<WireMessage> Failure(Random random, ClientForm form, ulong cookie, ClientCall call)
    {
        ushort type = random.Next(3) switch { 0 => ChunkType.ErrorOffset, 1 => 0x8123, _ => ChunkType.Error };
        string text = random.Next(3) == 0 ? "" : "bad";
        WireMessage error = WireMessage.Chunk(form.IsExtended, type, cookie, (ulong)call.Offset)
            .U32(FieldKind.Number, Errors[random.Next(Errors.Length)]).Text(text, lengthBytes: 2);
        if (type != ChunkType.Error)
        {
            error.U64(FieldKind.Number, (ulong)call.Offset + (ulong)random.Next(Math.Max(1, call.Length)));
        }
        error.Repair();
        List<WireMessage> before = random.Next(2) == 0 ? [] : Reply(random, form, cookie, call);
        return [.. before.SkipLast(1), .. Done([error])];
    }

    // Pieces of any length in any order, each of them data, or a hole if it lies in the first half.
    private static List<WireMessage> Content(Random random, ClientCall call, Func<ushort, WireMessage> chunk)
    {
        var pieces = new List<WireMessage>();
        int most = (call.Flags & CmdFlag.Df) != 0 ? 1 : random.Next(1, 7);
        for (int at = 0; at < call.Length;)
        {
            int length = pieces.Count + 1 >= most ? call.Length - at : random.Next(1, call.Length - at + 1);
            pieces.Add(at + length <= call.Length / 2 && random.Next(2) == 0
                ? chunk(ChunkType.OffsetHole).U64(FieldKind.Number, (ulong)(call.Offset + at)).U32(FieldKind.Number, (uint)length).Repair()
                : chunk(ChunkType.OffsetData).U64(FieldKind.Number, (ulong)(call.Offset + at))
                    .Add(FieldKind.Data, Data(call.Offset + at, length)).Repair());
            at += length;
        }
        if (random.Next(2) == 0)
        {
            random.Shuffle(System.Runtime.InteropServices.CollectionsMarshal.AsSpan(pieces));
        }
        return pieces;
    }

    // One chunk for each context that was asked about, with one extent or two.
    private static List<WireMessage> Status(ClientForm form, ClientCall call, Func<ushort, WireMessage> chunk)
    {
        var chunks = new List<WireMessage>();
        int contexts = form.FiltersStatus && !call.IsOther ? 1 : form.Contexts.Count;
        uint[] lengths = (call.Flags & CmdFlag.ReqOne) != 0 ? [(uint)call.Length] : [(uint)call.Length / 2, (uint)(call.Length - (call.Length / 2))];
        for (uint i = 0; i < contexts; i++)
        {
            WireMessage status = chunk(form.IsExtended ? ChunkType.BlockStatusExtended : ChunkType.BlockStatus)
                .U32(FieldKind.Number, ServerSpeech.FirstContext + i);
            if (form.IsExtended)
            {
                status.U32(FieldKind.Number, (uint)lengths.Length);
            }
            foreach (uint length in lengths)
            {
                uint value = length == lengths[0] ? 0u : 3;
                _ = form.IsExtended
                    ? status.U64(FieldKind.Number, length).U64(FieldKind.Flags, value)
                    : status.U32(FieldKind.Number, length).U32(FieldKind.Flags, value);
            }
            chunks.Add(status.Repair());
        }
        return chunks;
    }

    /// <summary>Marks the last chunk as that.</summary>
    private static List<WireMessage> Done(List<WireMessage> chunks)
    {
        List<WireField> fields = chunks[^1].Fields;
        fields[1] = fields[1] with { Bytes = [0, 1] };
        return chunks;
    }

    private static byte[] Data(int offset, int length)
    {
        byte[] data = new byte[length];
        for (int i = 0; i < data.Length; i++)
        {
            data[i] = MutantPlugin.At((ulong)(offset + i));
        }
        return data;
    }
}
