using System.Buffers.Binary;
using NbdKit.Server;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Threats;

/// <summary>All sequences of options, each judged against a model.</summary>
public sealed class OptionSequenceTests
{
    // 11,110 sequences; five are 111,110 and take ten times as long.
    private const int DefaultLength = 4;
    private const string LengthVariable = "NBDKIT_NET_OPTION_SEQUENCES";

    private const int Replies = 2;

    private static readonly uint[] Options =
    [
        Opt.Abort, Opt.List, Opt.StartTls, Opt.Info, Opt.Go, Opt.StructuredReply, Opt.ListMeta, Opt.SetMeta, Opt.ExtendedHeaders,
        0x5a5a5a5a,
    ];

    [Test, Property("Threat", "CVE-2019-14851")]
    public async Task Whatever_the_order_of_options_each_is_answered_as_the_model_says()
    {
        int longest = int.TryParse(Environment.GetEnvironmentVariable(LengthVariable), out int set) ? set : DefaultLength;
        var plugin = new TestPlugin(new TestExport("disk", 512));
        NbdBackend chain = NbdBackend.Compose(plugin);
        await chain.StartAsync();
        using var core = new ServerCore(chain, new NbdServerOptions { MaxOpensInHandshake = 16 }, () => { });
        int count = 0;
        for (int length = 1; length <= longest; length++)
        {
            int[] indices = new int[length];
            do
            {
                await JudgeAsync(core, [.. indices.Select(i => Options[i])]);
                count++;
            }
            while (Next(indices));
        }
        Assert.That(count, Is.EqualTo(Enumerable.Range(1, longest).Sum(length => (int)Math.Pow(Options.Length, length))));
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((plugin.Opened, plugin.Opened)), "opened and closed");
        await chain.DisposeAsync();
    }

    private static bool Next(int[] indices)
    {
        for (int i = indices.Length - 1; i >= 0; i--)
        {
            if (++indices[i] < Options.Length)
            {
                return true;
            }
            indices[i] = 0;
        }
        return false;
    }

    private static async Task JudgeAsync(ServerCore core, uint[] options)
    {
        var model = new OptionModel();
        List<string> expected = [.. options.SelectMany(model.Answer)];
        bool enters = options[^1] == Opt.Go && model.Entered == 1;
        var transport = new ScriptedTransport();
        transport.Feed(new WireBytes().U32(3).ToArray());
        foreach (uint option in options)
        {
            transport.Feed(WireBytes.Option(option, Data(option)));
        }
        if (enters)
        {
            expected.AddRange(model.Transmission());
            foreach (ushort command in new[] { Cmd.Read, Cmd.BlockStatus, Cmd.Disc })
            {
                ulong length = command == Cmd.Disc ? 0u : 16u;
                transport.Feed(model.IsExtended
                    ? WireBytes.ExtendedRequest(command, command, 0, length)
                    : WireBytes.Request(command, command, 0, (uint)length));
            }
        }
        transport.Finish();

        NbdDisconnect end = await core.ServeAsync(transport, CancellationToken.None).Soon();

        string what = string.Join(", ", options);
        string[] words = [.. Words(transport.TakeOutput())];
        if (enters && words.Length >= Replies)
        {
            // Replies to requests may come in any order.
            words.AsSpan(words.Length - Replies).Sort(StringComparer.Ordinal);
        }
        Assert.That(words, Is.EqualTo(expected), what);
        NbdDisconnectReason[] reasons = enters || model.Aborted ? [NbdDisconnectReason.ClientDone]
            : model.Entered > 0 ? [NbdDisconnectReason.ProtocolViolation, NbdDisconnectReason.ConnectionLost]
            : [NbdDisconnectReason.ClientGone];
        Assert.That(reasons, Does.Contain(end.Reason), $"{what}: {end.Detail}");
    }

    private static byte[] Data(uint option) => option switch
    {
        Opt.Info or Opt.Go => WireBytes.InfoRequest("disk"u8),
        Opt.ListMeta or Opt.SetMeta => WireBytes.MetaRequest("disk"u8, "base:allocation"),
        0x5a5a5a5a => [1, 2, 3],
        _ => [],
    };

    /// <summary>What the server sent, message by message.</summary>
    private static IEnumerable<string> Words(byte[] bytes)
    {
        int at = 18;
        while (at < bytes.Length)
        {
            ReadOnlySpan<byte> rest = bytes.AsSpan(at);
            if (BinaryPrimitives.ReadUInt64BigEndian(rest) == Magic.OptionReply)
            {
                uint type = BinaryPrimitives.ReadUInt32BigEndian(rest[12..]);
                uint id = type == Rep.MetaContext ? BinaryPrimitives.ReadUInt32BigEndian(rest[20..]) : 0;
                at += 20 + (int)BinaryPrimitives.ReadUInt32BigEndian(rest[16..]);
                yield return $"{BinaryPrimitives.ReadUInt32BigEndian(rest[8..])}:{type:x}:{id}";
                continue;
            }
            uint magic = BinaryPrimitives.ReadUInt32BigEndian(rest);
            switch (magic)
            {
                case Magic.SimpleReply:
                    uint error = BinaryPrimitives.ReadUInt32BigEndian(rest[4..]);
                    ulong cookie = BinaryPrimitives.ReadUInt64BigEndian(rest[8..]);
                    at += 16 + (cookie == Cmd.Read ? 16 : 0);
                    yield return $"simple {cookie} {error}";
                    break;
                case Magic.Chunk:
                    at += 20 + (int)BinaryPrimitives.ReadUInt32BigEndian(rest[16..]);
                    yield return $"chunk {BinaryPrimitives.ReadUInt64BigEndian(rest[8..])} "
                        + $"{BinaryPrimitives.ReadUInt16BigEndian(rest[6..]):x}";
                    break;
                case Magic.ExtendedReply:
                    at += 32 + (int)BinaryPrimitives.ReadUInt64BigEndian(rest[24..]);
                    yield return $"extended {BinaryPrimitives.ReadUInt64BigEndian(rest[8..])} "
                        + $"{BinaryPrimitives.ReadUInt16BigEndian(rest[6..]):x}";
                    break;
                default:
                    Assert.Fail($"no message begins with {magic:x}");
                    yield break;
            }
        }
    }
}
