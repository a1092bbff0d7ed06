using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>
/// Reads what a client sent and what a server answered side by side, by the protocol's grammar: every byte of the server must be
/// one that is due. Shares nothing with the library.
/// </summary>
internal sealed class ServerJudge(byte[] input, byte[] output, ServerRules rules)
{
    private const uint NoZeroes = 2;

    private readonly Cursor _in = new(input);
    private readonly Cursor _out = new(output);
    private bool _structured;
    private bool _extended;
    private Dictionary<uint, string> _contexts = [];

    /// <summary>The requests that were answered.</summary>
    public int Answered { get; private set; }

    /// <summary>Those of them that failed.</summary>
    public int Failed { get; private set; }

    /// <summary>The payload that options and requests declare, as far as the server allows it.</summary>
    public long Declared { get; private set; }

    /// <summary>Judges the whole connection.</summary>
    public void Check(NbdDisconnectReason reason)
    {
        MutationException.Require(reason != NbdDisconnectReason.Faulted, "the server failed");
        MutationException.Require(_out.U64() == Magic.Nbd && _out.U64() == Magic.IHaveOpt, "no greeting");
        MutationException.Require(_out.U16() == rules.Flags, "other flags than those that it has");
        if (_in.Has(4) && _in.U32() is var flags && (flags & ~rules.Flags) == 0)
        {
            Haggle((flags & NoZeroes) != 0, reason);
        }
        MutationException.Require(_out.IsAtEnd, $"{output.Length - _out.At} bytes more than are due, at {_out.At}");
    }

    private void Haggle(bool noZeroes, NbdDisconnectReason reason)
    {
        while (_in.Has(16) && _in.U64() == Magic.IHaveOpt)
        {
            uint option = _in.U32();
            uint length = _in.U32();
            if (!_in.Has(length) || (length > rules.MaxOption && (length > 8L * rules.MaxOption || option == Opt.ExportName)))
            {
                return;
            }
            Declared += length;
            _in.Take(length);
            if (_out.IsAtEnd)
            {
                MutationException.Require(
                    reason is not (NbdDisconnectReason.ClientGone or NbdDisconnectReason.ClientDone), $"option {option} was not answered");
                return;
            }
            if (option == Opt.ExportName)
            {
                _out.Take(10);
                MutationException.Require(
                    noZeroes || _out.Take(124).IndexOfAnyExcept((byte)0) < 0, "the bytes behind an export are not zero");
                Transmit(reason);
                return;
            }
            bool acknowledged = TakeReplies(option);
            if (option == Opt.Abort && acknowledged)
            {
                return;
            }
            if (option == Opt.Go && acknowledged)
            {
                Transmit(reason);
                return;
            }
        }
    }

    /// <summary>Takes the replies to one option; whether it was acknowledged.</summary>
    private bool TakeReplies(uint option)
    {
        var contexts = new Dictionary<uint, string>();
        int exports = 0;
        while (true)
        {
            MutationException.Require(_out.U64() == Magic.OptionReply, "no option reply");
            MutationException.Require(_out.U32() == option, $"a reply to another option than {option}");
            uint type = _out.U32();
            uint length = _out.U32();
            MutationException.Require(length <= 16 << 10, $"an option reply of {length} bytes");
            ReadOnlySpan<byte> data = _out.Take(length);
            string what = $"reply 0x{type:x} of {length} bytes to option {option}";
            if ((type & Rep.ErrorBit) != 0)
            {
                MutationException.Require(type <= Rep.ExtendedHeadersRequired, what);
                WireText.Check(data);
                _contexts = option == Opt.SetMeta ? [] : _contexts;
                return false;
            }
            switch (type)
            {
                case Rep.Ack:
                    MutationException.Require(length == 0, what);
                    MutationException.Require(option is not (Opt.Go or Opt.Info) || exports == 1, $"{exports} sizes before {what}");
                    _structured |= option == Opt.StructuredReply;
                    _extended |= option == Opt.ExtendedHeaders;
                    _contexts = option == Opt.SetMeta ? contexts : _contexts;
                    return true;
                case Rep.Server when option == Opt.List:
                    int name = (int)Number(data, 0, 4);
                    WireText.Check(data[4..(4 + name)]);
                    WireText.Check(data[(4 + name)..]);
                    break;
                case Rep.Info when option is Opt.Go or Opt.Info:
                    exports += TakeInfo(data, what) ? 1 : 0;
                    break;
                case Rep.MetaContext when option is Opt.SetMeta or Opt.ListMeta:
                    string context = WireText.Check(data[4..]);
                    MutationException.Require(context.Contains(':', StringComparison.Ordinal), what);
                    MutationException.Require(
                        option == Opt.ListMeta || contexts.TryAdd((uint)Number(data, 0, 4), context), $"an id twice: {what}");
                    break;
                default:
                    throw new MutationException($"out of place: {what}");
            }
        }
    }

    private static bool TakeInfo(ReadOnlySpan<byte> data, string what)
    {
        switch (Number(data, 0, 2))
        {
            case InfoType.Export:
                MutationException.Require(data.Length == 12 && (Number(data, 10, 2) & 1) != 0, what);
                return true;
            case InfoType.BlockSize:
                MutationException.Require(data.Length == 14, what);
                break;
            default:
                WireText.Check(data[2..]);
                break;
        }
        return false;
    }

    private void Transmit(NbdDisconnectReason reason)
    {
        var replies = new ReplyJudge(_structured, _extended, _contexts, rules.IsZero);
        ReadRequests(replies);
        Declared += replies.Declared;
        while (!_out.IsAtEnd)
        {
            replies.Take(_out);
        }
        replies.CheckAllAnswered(reason);
        Answered = replies.Answered;
        Failed = replies.Failed;
    }

    private void ReadRequests(ReplyJudge replies)
    {
        while (_in.Has(_extended ? 32 : 28) && _in.U32() == (_extended ? Magic.ExtendedRequest : Magic.Request))
        {
            ushort flags = _in.U16();
            ushort type = _in.U16();
            ulong cookie = _in.U64();
            ulong offset = _in.U64();
            ulong length = _extended ? _in.U64() : _in.U32();
            if (type == Cmd.Disc)
            {
                return;
            }
            bool flagged = _extended && (flags & CmdFlag.PayloadLength) != 0;
            var call = new WireCall(type, cookie, offset, length, flags);
            if (flagged || (type == Cmd.Write && !(_extended && rules.RequirePayloadFlag)))
            {
                if (length > rules.MaxPayload || !_in.Has((long)length))
                {
                    Declared += (long)Math.Min(length, rules.MaxPayload);
                    return;
                }
                ReadOnlySpan<byte> payload = _in.Take((long)length);
                if (type == Cmd.BlockStatus && payload.Length >= 12)
                {
                    call = call with { Length = Number(payload, 0, 8), Contexts = Ids(payload[8..]) };
                }
            }
            replies.Expect(call, rules.MaxPayload);
        }
    }

    private static List<uint> Ids(ReadOnlySpan<byte> bytes)
    {
        var ids = new List<uint>();
        for (int at = 0; at + 4 <= bytes.Length; at += 4)
        {
            ids.Add((uint)Number(bytes, at, 4));
        }
        return ids;
    }

    private static ulong Number(ReadOnlySpan<byte> bytes, int at, int size)
    {
        MutationException.Require(bytes.Length >= at + size, $"{size} bytes are due at {at} of {bytes.Length}");
        ulong value = 0;
        foreach (byte one in bytes.Slice(at, size))
        {
            value = (value << 8) | one;
        }
        return value;
    }
}
