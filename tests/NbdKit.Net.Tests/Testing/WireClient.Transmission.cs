namespace NbdKit.Tests.Testing;

// Requests and replies.
internal sealed partial class WireClient
{
    // Locked by itself: a test may send while it waits for a reply.
    private readonly Dictionary<ulong, Queue<WireCall>> _sent = [];
    private readonly Dictionary<ulong, List<WireChunk>> _partial = [];
    private ulong _lastCookie;

    /// <summary>Sends a request.</summary>
    /// <returns>What was sent.</returns>
    public async Task<WireCall> SendRequestAsync(
        ushort command, ulong offset = 0, ulong length = 0, ushort flags = 0, byte[]? payload = null, ulong? cookie = null)
    {
        WireCall call = Expect(command, offset, length, flags, cookie);
        byte[] header = IsExtended
            ? WireBytes.ExtendedRequest(command, call.Cookie, offset, length, flags)
            : WireBytes.Request(command, call.Cookie, offset, (uint)length, flags);
        await SendAsync(payload is null ? header : [.. header, .. payload]);
        return call;
    }

    /// <summary>Notes a request that the test sends by itself, so that its reply can be judged.</summary>
    public WireCall Expect(
        ushort command, ulong offset = 0, ulong length = 0, ushort flags = 0, ulong? cookie = null,
        IReadOnlyList<uint>? contexts = null)
    {
        var call = new WireCall(command, cookie ?? ++_lastCookie, offset, length, flags) { Contexts = contexts };
        lock (_sent)
        {
            if (!_sent.TryGetValue(call.Cookie, out Queue<WireCall>? calls))
            {
                _sent.Add(call.Cookie, calls = new Queue<WireCall>());
            }
            calls.Enqueue(call);
        }
        return call;
    }

    /// <summary>Sends a request and reads the reply to it, which must be the next one.</summary>
    public async Task<WireReply> CallAsync(
        ushort command, ulong offset = 0, ulong length = 0, ushort flags = 0, byte[]? payload = null, ulong? cookie = null)
    {
        WireCall call = await SendRequestAsync(command, offset, length, flags, payload, cookie);
        WireReply reply = await ReadReplyAsync();
        Assert.That(reply.Cookie, Is.EqualTo(call.Cookie));
        return reply;
    }

    /// <summary>Sends a request and asserts the error number of its reply.</summary>
    public async Task<WireReply> ExpectCallAsync(
        uint error, ushort command, ulong offset = 0, ulong length = 0, ushort flags = 0, byte[]? payload = null)
    {
        WireReply reply = await CallAsync(command, offset, length, flags, payload);
        Assert.That(reply.Error, Is.EqualTo(error), $"{reply.Call}: {reply.Message}");
        return reply;
    }

    /// <summary>Reads a range and asserts that it succeeds.</summary>
    public async Task<byte[]> ReadDataAsync(ulong offset, uint length, ushort flags = 0)
        => (await ExpectCallAsync(WireError.Ok, Cmd.Read, offset, length, flags)).Data;

    /// <summary>Writes and asserts that it succeeds.</summary>
    public Task WriteDataAsync(ulong offset, byte[] data, ushort flags = 0)
        => ExpectCallAsync(
            WireError.Ok, Cmd.Write, offset, (uint)data.Length,
            IsExtended ? (ushort)(flags | CmdFlag.PayloadLength) : flags, data);

    /// <summary>Asserts that the connection is alive and in step: a read is answered with the right bytes.</summary>
    /// <param name="expected">The content of the export, or null if only the grammar counts.</param>
    /// <param name="most">The length of the read, if the export is not smaller.</param>
    public async Task ExpectAliveAsync(byte[]? expected, uint most = 512)
    {
        uint length = (uint)Math.Min(Size, most);
        byte[] data = await ReadDataAsync(0, length);
        if (expected is not null)
        {
            Assert.That(data.AsSpan().SequenceEqual(expected.AsSpan(0, (int)length)), "the content is wrong");
        }
    }

    /// <summary>Reads the next complete reply, whichever request it belongs to, and judges its grammar.</summary>
    public async Task<WireReply> ReadReplyAsync()
    {
        while (true)
        {
            uint magic = U32(await ReadAsync(4));
            if (IsExtended)
            {
                Assert.That(magic, Is.EqualTo(Magic.ExtendedReply), "an extended session has no other replies");
                if (await ReadExtendedChunkAsync() is { } extended)
                {
                    return extended;
                }
                continue;
            }
            if (magic == Magic.SimpleReply)
            {
                return await ReadSimpleReplyAsync();
            }
            Assert.That(magic, Is.EqualTo(Magic.Chunk), "no reply begins with this magic");
            if (await ReadChunkAsync() is { } reply)
            {
                return reply;
            }
        }
    }

    private async Task<WireReply> ReadSimpleReplyAsync()
    {
        byte[] header = await ReadAsync(12);
        uint error = U32(header);
        WireCall call = Take(U64(header.AsSpan(4)));
        Assert.That(call.Command, Is.Not.EqualTo(Cmd.Disc), "DISC is not answered");
        if (IsStructured)
        {
            Assert.That(call.Command, Is.Not.EqualTo(Cmd.Read), $"a simple reply to a structured {call}");
            Assert.That(call.Command, Is.Not.EqualTo(Cmd.BlockStatus), $"a simple reply to a structured {call}");
        }
        if (error != 0)
        {
            Assert.That(WireError.Legal, Does.Contain(error), $"an error number that may not travel: {call}");
            return new WireReply(call) { Error = error };
        }
        return new WireReply(call) { Data = call.Command == Cmd.Read ? await ReadAsync((int)call.Length) : [] };
    }

    private async Task<WireReply?> ReadChunkAsync()
    {
        byte[] header = await ReadAsync(16);
        ushort flags = U16(header);
        ulong cookie = U64(header.AsSpan(4));
        uint length = U32(header.AsSpan(12));
        Assert.That(IsStructured, "a structured reply was not negotiated");
        return await ReadPayloadAsync(U16(header.AsSpan(2)), flags, cookie, length);
    }

    private async Task<WireReply?> ReadExtendedChunkAsync()
    {
        byte[] header = await ReadAsync(28);
        ulong cookie = U64(header.AsSpan(4));
        Assert.That(U64(header.AsSpan(12)), Is.EqualTo(Waiting(cookie).Offset), "the offset of the request");
        ulong length = U64(header.AsSpan(20));
        Assert.That(length, Is.LessThanOrEqualTo(uint.MaxValue));
        return await ReadPayloadAsync(U16(header.AsSpan(2)), U16(header), cookie, (uint)length);
    }

    private async Task<WireReply?> ReadPayloadAsync(ushort type, ushort flags, ulong cookie, uint length)
    {
        Assert.That(flags & ~1, Is.Zero, "an unknown chunk flag");
        Waiting(cookie);
        Assert.That(length, Is.LessThanOrEqualTo((32 << 20) + 8), "a chunk is longer than the largest payload");
        var chunk = new WireChunk(type, (flags & 1) != 0, await ReadAsync((int)length));
        if (!_partial.TryGetValue(cookie, out List<WireChunk>? chunks))
        {
            _partial.Add(cookie, chunks = []);
        }
        chunks.Add(chunk);
        if (!chunk.IsDone)
        {
            return null;
        }
        _partial.Remove(cookie);
        return new ChunkGrammar(Take(cookie), ContextIds, IsExtended).Judge(chunks);
    }

    private WireCall Take(ulong cookie)
    {
        lock (_sent)
        {
            WireCall call = Waiting(cookie);
            Queue<WireCall> calls = _sent[cookie];
            calls.Dequeue();
            if (calls.Count == 0)
            {
                _sent.Remove(cookie);
            }
            return call;
        }
    }

    /// <summary>The request that a cookie in a reply is of.</summary>
    private WireCall Waiting(ulong cookie)
    {
        lock (_sent)
        {
            Assert.That(_sent.TryGetValue(cookie, out Queue<WireCall>? calls), $"no request waits with the cookie {cookie:x}");
            return calls!.Peek();
        }
    }
}
