using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>The requests of a connection, and the rules for the replies to them.</summary>
internal sealed class ReplyJudge(
    bool structured, bool extended, Dictionary<uint, string> contexts, Func<ulong, ulong, bool>? isZero)
{
    private readonly Dictionary<ulong, Queue<PartialReply>> _waiting = [];
    // A client that uses a cookie again while it waits cannot know which reply is whose, for replies come in any order.
    private readonly HashSet<ulong> _ambiguous = [];
    private int _unanswered;
    private bool _isLost;

    public int Answered { get; private set; }

    public int Failed { get; private set; }

    public long Declared { get; private set; }

    public void Expect(WireCall call, uint maxPayload)
    {
        if (!_waiting.TryGetValue(call.Cookie, out Queue<PartialReply>? queue))
        {
            _waiting.Add(call.Cookie, queue = []);
        }
        if (queue.Count > 0)
        {
            _ambiguous.Add(call.Cookie);
        }
        queue.Enqueue(new PartialReply(call, contexts, extended, isZero));
        _unanswered++;
        Declared += call.Command switch
        {
            Cmd.Read or Cmd.Write => (long)Math.Min(call.Length, maxPayload),
            // What the largest reply to it takes: 16 bytes for each of the extents that it may have.
            Cmd.BlockStatus => 16L * ExtentList.DefaultMaximumCount,
            _ => 0,
        };
    }

    /// <summary>Takes one reply, or one chunk of one.</summary>
    public void Take(Cursor output)
    {
        uint magic = output.U32();
        if (magic == Magic.SimpleReply && !extended)
        {
            TakeSimple(output);
            return;
        }
        MutationException.Require(
            magic == (extended ? Magic.ExtendedReply : Magic.Chunk) && (structured || extended), $"no reply begins with {magic:x}");
        ushort flags = output.U16();
        ushort type = output.U16();
        PartialReply reply = Find(output.U64());
        MutationException.Require((flags & ~1) == 0, $"chunk flags {flags:x}");
        bool isKnown = !_ambiguous.Contains(reply.Call.Cookie);
        if (extended)
        {
            ulong offset = output.U64();
            MutationException.Require(!isKnown || offset == reply.Call.Offset, $"a chunk for {reply.Call} names the offset {offset}");
        }
        ulong length = extended ? output.U64() : output.U32();
        MutationException.Require(length <= (32 << 20) + 8, $"a chunk of {length} bytes");
        ReadOnlySpan<byte> payload = output.Take((long)length);
        if (isKnown)
        {
            reply.Add(type, payload);
        }
        if ((flags & 1) != 0)
        {
            Failed += isKnown && !reply.Finish(type) ? 1 : 0;
            Remove(reply);
        }
    }

    public void CheckAllAnswered(NbdDisconnectReason reason)
        => MutationException.Require(_unanswered == 0 || _isLost, $"{_unanswered} requests were not answered before the end by {reason}");

    private void TakeSimple(Cursor output)
    {
        uint error = output.U32();
        PartialReply reply = Find(output.U64());
        if (!structured && _waiting[reply.Call.Cookie].Select(waiting => DataOf(waiting.Call)).Distinct().Count() > 1)
        {
            // Whose it is nobody can tell, and so not where it ends.
            _isLost = true;
            output.TakeRest();
            return;
        }
        MutationException.Require(
            !structured || _ambiguous.Contains(reply.Call.Cookie) || reply.Call.Command is not (Cmd.Read or Cmd.BlockStatus), $"a simple reply to {reply.Call}");
        if (error != 0)
        {
            MutationException.Require(WireError.Legal.Contains(error), $"error {error} for {reply.Call}");
            Failed++;
        }
        else if (reply.Call.Command == Cmd.Read && !structured)
        {
            ReadOnlySpan<byte> data = output.Take((long)reply.Call.Length);
            if (!_ambiguous.Contains(reply.Call.Cookie))
            {
                reply.CheckData(reply.Call.Offset, data);
            }
        }
        Remove(reply);
    }

    private static ulong DataOf(WireCall call) => call.Command == Cmd.Read ? call.Length : 0;

    private PartialReply Find(ulong cookie)
        => _waiting.TryGetValue(cookie, out Queue<PartialReply>? queue) && queue.TryPeek(out PartialReply? reply)
            ? reply
            : throw new MutationException($"no request waits with the cookie {cookie:x}");

    private void Remove(PartialReply reply)
    {
        _waiting[reply.Call.Cookie].Dequeue();
        _unanswered--;
        Answered++;
    }
}
