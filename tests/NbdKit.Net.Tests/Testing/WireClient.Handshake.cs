using System.Text;

namespace NbdKit.Tests.Testing;

// Greeting and option haggling.
internal sealed partial class WireClient
{
    public const uint FixedNewstyle = 1;
    public const uint NoZeroes = 2;

    /// <summary>Whether structured replies were negotiated; replies are judged by it.</summary>
    public bool IsStructured { get; set; }

    /// <summary>Whether extended headers were negotiated.</summary>
    public bool IsExtended { get; set; }

    /// <summary>The ids of the meta contexts that were selected last.</summary>
    public IReadOnlyList<uint> ContextIds { get; set; } = [];

    /// <summary>The size of the export once transmission has begun.</summary>
    public ulong Size { get; private set; }

    /// <summary>The transmission flags once transmission has begun.</summary>
    public ushort Flags { get; private set; }

    /// <summary>Reads the greeting and checks its magics.</summary>
    /// <returns>The handshake flags.</returns>
    public async Task<ushort> ReadGreetingAsync()
    {
        byte[] greeting = await ReadAsync(18);
        Assert.That(U64(greeting), Is.EqualTo(Magic.Nbd));
        Assert.That(U64(greeting.AsSpan(8)), Is.EqualTo(Magic.IHaveOpt));
        return U16(greeting.AsSpan(16));
    }

    /// <summary>Reads the greeting and answers it.</summary>
    public async Task GreetAsync(uint clientFlags = FixedNewstyle | NoZeroes)
    {
        await ReadGreetingAsync();
        await SendAsync(new WireBytes().U32(clientFlags).ToArray());
    }

    public Task SendOptionAsync(uint option, ReadOnlySpan<byte> data = default)
        => SendAsync(WireBytes.Option(option, data));

    public async Task<OptionReply> ReadOptionReplyAsync()
    {
        byte[] header = await ReadAsync(20);
        Assert.That(U64(header), Is.EqualTo(Magic.OptionReply));
        uint length = U32(header.AsSpan(16));
        Assert.That(length, Is.LessThanOrEqualTo(16 << 10), "the data of an option reply is too long");
        var reply = new OptionReply(U32(header.AsSpan(8)), U32(header.AsSpan(12)), await ReadAsync((int)length));
        if (reply.IsError)
        {
            _ = reply.Text;
        }
        return reply;
    }

    /// <summary>Reads all replies to one option.</summary>
    public async Task<OptionResult> ReadOptionResultAsync(uint option)
    {
        var replies = new List<OptionReply>();
        do
        {
            OptionReply reply = await ReadOptionReplyAsync();
            Assert.That(reply.Option, Is.EqualTo(option), reply.ToString());
            replies.Add(reply);
        }
        while (!replies[^1].IsFinal);
        return new OptionResult(replies);
    }

    /// <summary>Sends an option and reads all replies to it.</summary>
    public Task<OptionResult> OptAsync(uint option, ReadOnlySpan<byte> data = default)
    {
        Task sent = SendOptionAsync(option, data);
        return AfterAsync();

        async Task<OptionResult> AfterAsync()
        {
            await sent;
            return await ReadOptionResultAsync(option);
        }
    }

    /// <summary>Sends an option and asserts that its only reply is of a type.</summary>
    public async Task<OptionReply> ExpectOptAsync(uint type, uint option, byte[]? data = null)
    {
        OptionResult result = await OptAsync(option, data ?? []);
        Assert.That(result.Replies, Has.Count.EqualTo(1), "only the final reply was expected");
        Assert.That(result.Type, Is.EqualTo(type), $"{result.Final}: {(result.Final.IsError ? result.Final.Text : "")}");
        return result.Final;
    }

    /// <summary>Asserts that haggling goes on and is in step, with an option that has no side effect.</summary>
    public Task ExpectHagglingAsync() => ExpectOptAsync(Rep.Unsup, 0x5a5a5a5a);

    public Task<OptionResult> InfoAsync(string name = "", params ReadOnlySpan<ushort> infos)
        => OptAsync(Opt.Info, WireBytes.InfoRequest(Encoding.UTF8.GetBytes(name), infos));

    /// <summary>Asks to enter transmission and remembers what the server told.</summary>
    public Task<OptionResult> TryGoAsync(string name = "", params ReadOnlySpan<ushort> infos)
    {
        byte[] data = WireBytes.InfoRequest(Encoding.UTF8.GetBytes(name), infos);
        return GoneAsync();

        async Task<OptionResult> GoneAsync()
        {
            OptionResult result = await OptAsync(Opt.Go, data);
            if (result.IsAck)
            {
                Size = result.Size;
                Flags = result.Flags;
            }
            return result;
        }
    }

    /// <summary>Enters transmission.</summary>
    public async Task<OptionResult> GoAsync(string name = "")
    {
        OptionResult result = await TryGoAsync(name);
        Assert.That(result.IsAck, $"{result.Final}: {(result.Final.IsError ? result.Final.Text : "")}");
        return result;
    }

    /// <summary>Enters transmission by NBD_OPT_EXPORT_NAME.</summary>
    public async Task ExportNameAsync(string name = "", bool zeroes = false)
    {
        await SendOptionAsync(Opt.ExportName, Encoding.UTF8.GetBytes(name));
        byte[] reply = await ReadAsync(zeroes ? 134 : 10);
        Size = U64(reply);
        Flags = U16(reply.AsSpan(8));
        Assert.That(reply.AsSpan(10).IndexOfAnyExcept((byte)0), Is.EqualTo(-1), "the 124 bytes are zero");
    }

    /// <summary>Negotiates structured replies.</summary>
    public async Task StructuredAsync()
    {
        await ExpectOptAsync(Rep.Ack, Opt.StructuredReply);
        IsStructured = true;
    }

    /// <summary>Negotiates extended headers.</summary>
    public async Task ExtendedAsync()
    {
        await ExpectOptAsync(Rep.Ack, Opt.ExtendedHeaders);
        IsExtended = true;
    }

    public Task<OptionResult> ListMetaAsync(string name = "", params ReadOnlySpan<string> queries)
        => OptAsync(Opt.ListMeta, WireBytes.MetaRequest(Encoding.UTF8.GetBytes(name), queries));

    /// <summary>Selects meta contexts and remembers their ids.</summary>
    public Task<OptionResult> SetMetaAsync(string name = "", params ReadOnlySpan<string> queries)
    {
        byte[] data = WireBytes.MetaRequest(Encoding.UTF8.GetBytes(name), queries);
        return SelectedAsync();

        async Task<OptionResult> SelectedAsync()
        {
            OptionResult result = await OptAsync(Opt.SetMeta, data);
            ContextIds = result.IsAck ? [.. result.Before.Select(reply => reply.ContextId)] : [];
            return result;
        }
    }
}
