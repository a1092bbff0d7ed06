using System.Buffers.Binary;
using System.IO.Pipelines;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A server that answers each option with bytes that the test chose, and remembers what it was asked. Without changes it is a
/// good one: structured replies, base:allocation, one export of 1 MiB.
/// </summary>
internal sealed class ScriptedServer
{
    private readonly PipePair _pipes = new();
    private readonly Stream _stream;
    private readonly Lock _lock = new();
    private readonly List<(uint Option, byte[] Data)> _options = [];

    public ScriptedServer()
    {
        _stream = new DuplexPipeStream(_pipes.Server);
        Answers = new()
        {
            [Opt.StructuredReply] = _ => Reply(Opt.StructuredReply, Rep.Ack),
            [Opt.ExtendedHeaders] = _ => Reply(Opt.ExtendedHeaders, Rep.Unsup),
            [Opt.StartTls] = _ => Reply(Opt.StartTls, Rep.Unsup),
            [Opt.SetMeta] = _ => [.. Context(Opt.SetMeta, 7, "base:allocation"), .. Reply(Opt.SetMeta, Rep.Ack)],
            [Opt.ListMeta] = _ => [.. Context(Opt.ListMeta, 0, "base:allocation"), .. Reply(Opt.ListMeta, Rep.Ack)],
            [Opt.List] = _ => [.. Server("disk", "a disk"), .. Reply(Opt.List, Rep.Ack)],
            [Opt.Info] = _ => [.. Export(Opt.Info, Size, Flags), .. Reply(Opt.Info, Rep.Ack)],
            [Opt.Go] = _ => [.. Export(Opt.Go, Size, Flags), .. Reply(Opt.Go, Rep.Ack)],
            [Opt.Abort] = _ => Reply(Opt.Abort, Rep.Ack),
        };
    }

    public const ulong Size = 1 << 20;

    public const ushort Flags = 0x6d;

    /// <summary>The handshake flags.</summary>
    public ushort HandshakeFlags { get; init; } = 3;

    /// <summary>What is sent in place of a greeting.</summary>
    public byte[]? Greeting { get; init; }

    /// <summary>Whether the server closes behind its greeting.</summary>
    public bool EndsAfterGreeting { get; init; }

    /// <summary>Whether the server closes behind its answer to the option that opens an export.</summary>
    public bool EndsAfterOpening { get; init; }

    /// <summary>What each option is answered with; null closes the connection, an empty array says nothing.</summary>
    public Dictionary<uint, Func<byte[], byte[]?>> Answers { get; }

    /// <summary>Called when STARTTLS was acknowledged; the stream that it returns goes on, null ends.</summary>
    public Func<Stream, Task<Stream?>>? Tls { get; init; }

    /// <summary>The client's end.</summary>
    public IDuplexPipe Client => _pipes.Client;

    /// <summary>The flags that the client answered the greeting with; null if it did not.</summary>
    public uint? ClientFlags { get; private set; }

    /// <summary>What follows the last option, which entered the transmission phase.</summary>
    public byte[] After { get; private set; } = [];

    /// <summary>Whether something came before the answer to what came before it.</summary>
    public bool Hasty { get; private set; }

    /// <summary>The options that came, with their data.</summary>
    public IReadOnlyList<(uint Option, byte[] Data)> Options
    {
        get
        {
            lock (_lock)
            {
                return [.. _options];
            }
        }
    }

    /// <summary>The types of the options that came.</summary>
    public IEnumerable<uint> Trace => Options.Select(o => o.Option);

    /// <summary>Completes when the client has closed.</summary>
    public Task Ended { get; private set; } = Task.CompletedTask;

    public ScriptedServer Answer(uint option, Func<byte[], byte[]?> answer)
    {
        Answers[option] = answer;
        return this;
    }

    public ScriptedServer Answer(uint option, params byte[] answer) => Answer(option, _ => answer);

    public static byte[] Reply(uint option, uint type, params ReadOnlySpan<byte> data)
        => new WireBytes().U64(Magic.OptionReply).U32(option).U32(type).U32((uint)data.Length).Raw(data).ToArray();

    public static byte[] Error(uint option, uint type, string text = "")
        => Reply(option, type, System.Text.Encoding.UTF8.GetBytes(text));

    public static byte[] Server(string name, string description = "")
        => Reply(Opt.List, Rep.Server, [.. new WireBytes().Text(name).ToArray(), .. System.Text.Encoding.UTF8.GetBytes(description)]);

    public static byte[] Context(uint option, uint id, string name)
        => Reply(option, Rep.MetaContext, [.. new WireBytes().U32(id).ToArray(), .. System.Text.Encoding.UTF8.GetBytes(name)]);

    public static byte[] Export(uint option, ulong size, ushort flags)
        => Reply(option, Rep.Info, new WireBytes().U16(InfoType.Export).U64(size).U16(flags).ToArray());

    public static byte[] Info(uint option, ushort type, params ReadOnlySpan<byte> content)
        => Reply(option, Rep.Info, new WireBytes().U16(type).Raw(content).ToArray());

    public static byte[] BlockSizes(uint option, uint minimum, uint preferred, uint maximum)
        => Info(option, InfoType.BlockSize, new WireBytes().U32(minimum).U32(preferred).U32(maximum).ToArray());

    /// <summary>Begins to serve.</summary>
    public ScriptedServer Start()
    {
        Ended = Task.Run(RunAsync);
        return this;
    }

    private async Task RunAsync()
    {
        Stream stream = _stream;
        try
        {
            await stream.WriteAsync(Greeting ?? new WireBytes().U64(Magic.Nbd).U64(Magic.IHaveOpt).U16(HandshakeFlags).ToArray());
            if (EndsAfterGreeting)
            {
                await stream.DisposeAsync();
                return;
            }
            ClientFlags = BinaryPrimitives.ReadUInt32BigEndian(await ReadAsync(stream, 4));
            while (await AnswerAsync(stream))
            {
                if (Tls is not null && _options[^1].Option == Opt.StartTls)
                {
                    Stream? next = await Tls(stream);
                    if (next is null)
                    {
                        return;
                    }
                    stream = next;
                }
            }
        }
        catch (EndOfStreamException)
        {
            // The client is gone.
        }
        await _stream.DisposeAsync();
    }

    /// <summary>Answers one option; whether another may follow.</summary>
    private async Task<bool> AnswerAsync(Stream stream)
    {
        byte[] header = await ReadAsync(stream, 16);
        Assert.That(BinaryPrimitives.ReadUInt64BigEndian(header), Is.EqualTo(Magic.IHaveOpt), "the magic of an option");
        uint option = BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(8));
        byte[] data = await ReadAsync(stream, BinaryPrimitives.ReadInt32BigEndian(header.AsSpan(12)));
        lock (_lock)
        {
            _options.Add((option, data));
        }
        // A chance for whoever does not wait for the answer.
        await Task.Yield();
        Hasty |= _pipes.Server.Input.TryRead(out ReadResult early) && Look(early);
        if (Answers.GetValueOrDefault(option, _ => Reply(option, Rep.Unsup))(data) is not { } answer)
        {
            return false;
        }
        await stream.WriteAsync(answer);
        bool goes = option == Opt.ExportName || (option == Opt.Go && answer.AsSpan().EndsWith(Reply(Opt.Go, Rep.Ack)));
        if (goes && EndsAfterOpening)
        {
            return false;
        }
        if (!goes)
        {
            return option != Opt.Abort;
        }
        var after = new MemoryStream();
        await stream.CopyToAsync(after);
        After = after.ToArray();
        return false;
    }

    private bool Look(ReadResult early)
    {
        _pipes.Server.Input.AdvanceTo(early.Buffer.Start);
        return !early.Buffer.IsEmpty;
    }

    private static async Task<byte[]> ReadAsync(Stream stream, int count)
    {
        byte[] bytes = new byte[count];
        await stream.ReadExactlyAsync(bytes);
        return bytes;
    }
}
