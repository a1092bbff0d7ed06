using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Conformance;

/// <summary>
/// One session with every option and every command, as the bytes that the client sends in one go, and as what must come
/// back however those bytes arrive.
/// </summary>
internal sealed class WireSession
{
    private readonly List<(uint Option, byte[] Data)> _options =
    [
        (Opt.List, []),
        (Opt.StartTls, []),
        (Opt.StructuredReply, []),
        (0x1234, [1, 2, 3]),
        (Opt.Info, WireBytes.InfoRequest("disk"u8, 0, 1, 2, 3, 77)),
        (Opt.ListMeta, WireBytes.MetaRequest("disk"u8, "base:")),
        (Opt.SetMeta, WireBytes.MetaRequest("disk"u8, "x-none:such", "base:allocation")),
        (Opt.Go, WireBytes.InfoRequest("missing"u8, 3)),
        (Opt.Go, WireBytes.InfoRequest("disk"u8, 3, 1)),
    ];

    private readonly List<(WireCall Call, byte[] Payload)> _requests =
    [
        (new WireCall(Cmd.Read, 1, 3, 40, 0), []),
        (new WireCall(Cmd.Write, 2, 100, 50, CmdFlag.Fua), [.. Enumerable.Repeat((byte)0x42, 50)]),
        (new WireCall(Cmd.Write, 3, 1 << 20, 30, 0), [.. Enumerable.Repeat((byte)0x25, 30)]),
        (new WireCall(Cmd.Flush, 4, 0, 0, 0), []),
        (new WireCall(Cmd.Trim, 5, 512, 512, 0), []),
        (new WireCall(Cmd.Cache, 6, 0, 512, 0), []),
        (new WireCall(Cmd.WriteZeroes, 7, 1024, 512, CmdFlag.NoHole), []),
        (new WireCall(Cmd.BlockStatus, 8, 0, 4096, 0), []),
        (new WireCall(Cmd.Read, 9, ulong.MaxValue, 1, 0), []),
        (new WireCall(99, 10, 0, 0, 0), []),
    ];

    private readonly bool _extended;

    public WireSession(bool extended = false)
    {
        _extended = extended;
        if (extended)
        {
            _options[_options.FindIndex(option => option.Option == Opt.StructuredReply)] = (Opt.ExtendedHeaders, []);
            _requests.Add((
                new WireCall(Cmd.BlockStatus, 12, 512, 4096, CmdFlag.PayloadLength) { Contexts = [1] },
                new WireBytes().U64(4096).U32(1).ToArray()));
            _requests.Add((new WireCall(Cmd.Read, 13, 0, 2, CmdFlag.PayloadLength), [1, 2]));
        }
        WireBytes bytes = new WireBytes().U32(3);
        foreach ((uint option, byte[] data) in _options)
        {
            bytes.Raw(WireBytes.Option(option, data));
        }
        HandshakeLength = bytes.ToArray().Length;
        foreach ((WireCall call, byte[] payload) in _requests)
        {
            bytes.Raw(Request(call, payload)).Raw(payload);
        }
        bytes.Raw(Request(new WireCall(Cmd.Disc, 11, 0, 0, 0), []));
        Bytes = bytes.ToArray();
    }

    /// <summary>All that the client sends.</summary>
    public byte[] Bytes { get; }

    /// <summary>How much of it is handshake.</summary>
    public int HandshakeLength { get; }

    public static TestPlugin Plugin(ThreadModel model = ThreadModel.Parallel, bool blocking = false)
        => new(new TestExport("disk")
        {
            Description = "a disk",
            Configure = info => info with { BlockSize = new BlockSize(1, 4096, 1 << 20), IsBlocking = blocking },
        })
        {
            ThreadModel = model,
        };

    /// <summary>Sends everything and reads everything, judged as it comes.</summary>
    /// <returns>What came, in words, with the replies to requests in the order of their cookies.</returns>
    public async Task<string> RunAsync(WireClient client)
    {
        var words = new StringBuilder();
        await client.SendAsync(Bytes);
        words.AppendLine($"{await client.ReadGreetingAsync()}");
        foreach ((uint option, _) in _options)
        {
            OptionResult result = await client.ReadOptionResultAsync(option);
            foreach (OptionReply reply in result.Replies)
            {
                words.AppendLine($"{reply.Option} {reply.Type:x} {Convert.ToHexString(reply.Data)}");
            }
            client.IsStructured |= option == Opt.StructuredReply && result.IsAck;
            client.IsExtended |= option == Opt.ExtendedHeaders && result.IsAck;
            if (option == Opt.SetMeta)
            {
                client.ContextIds = [.. result.Before.Select(reply => reply.ContextId)];
            }
        }
        foreach ((WireCall call, _) in _requests)
        {
            client.Expect(call.Command, call.Offset, call.Length, call.Flags, call.Cookie, call.Contexts);
        }
        var replies = new List<WireReply>();
        for (int i = 0; i < _requests.Count; i++)
        {
            replies.Add(await client.ReadReplyAsync());
        }
        foreach (WireReply reply in replies.OrderBy(reply => reply.Cookie))
        {
            words.AppendLine($"{reply.Call}: {reply.Error} '{reply.Message}' {Convert.ToHexString(reply.Data)}");
            foreach (WireChunk chunk in reply.Chunks)
            {
                words.AppendLine($"  {chunk.Type:x} {Convert.ToHexString(chunk.Payload)}");
            }
        }
        await client.ExpectGoneAsync(NbdDisconnectReason.ClientDone);
        return words.ToString();
    }

    private byte[] Request(WireCall call, byte[] payload)
        => !_extended
            ? WireBytes.Request(call.Command, call.Cookie, call.Offset, (uint)call.Length, call.Flags)
            : payload.Length == 0
                ? WireBytes.ExtendedRequest(call.Command, call.Cookie, call.Offset, call.Length, call.Flags)
                : WireBytes.ExtendedRequest(
                    call.Command, call.Cookie, call.Offset, (ulong)payload.Length, (ushort)(call.Flags | CmdFlag.PayloadLength));
}
