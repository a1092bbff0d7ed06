using System.Buffers;
using System.Buffers.Binary;
using System.Runtime.InteropServices;
using System.Text;
using System.Text.RegularExpressions;
using NbdKit.Protocol;

namespace NbdKit.Faults.Mutation;

/// <summary>What is parsed from text that others wrote: URIs, numbers of configurations, names, queries for meta contexts.</summary>
/// <remarks>The variant says which; the text may come in one piece only.</remarks>
internal sealed class TextTarget : MutationTarget
{
    private const int Uris = 0;
    private const int Queries = 1;
    private const int Names = 7;

    private static readonly string[][] Good =
    [
        [
            "nbd://localhost", "nbd://example.com:10810/disk", "nbds://[::1]:5/a%20b?tls-hostname=x", "nbd+unix:///disk?socket=/tmp/s",
            "nbds+unix:///?socket=/run/x&tls-verify-peer=false", "nbd+vsock://2:10809/x", "nbds://user@host/%C3%A9", "nbd://127.0.0.1/..",
        ],
        ["base:", "base:allocation", "x-test:second", "qemu:", ""],
        ["0", "1", "512", "1.5G", "0x1_E", "4s", "010", "7E", "1k", "0xff", "100_k", "9223372036854775807"],
        ["1", "0", "true", "False", "t", "f", "yes", "NO", "y", "n", "on", "off"],
        ["0.1", "10%", "1:10", "1/10", "0", "1e-5", "150%"],
        ["1", "100ms", "1.5s", "3us", "7\u03bcs", "9ns", "0"],
        ["0", "-1", "+7", "0x10", "017", "-9223372036854775808"],
        ["base:allocation", "x-test:second", "qemu:allocation-depth", "nbd-server:x", "x-:", "base:"],
    ];

    private static readonly string[] Junk =
    [
        "", "\0", "\ufffd", "%", "%zz", "%00", "%C3", "-", "--", "-oProxyCommand=x", ":", "::", "/", "//", "?", "&", "=", "#", "@", "[", "]", "[::",
        "..", "_", "0x", "e", "E999", "999999999999999999999", "18446744073709551616", ".", ",", " ", "\t", "\u0660", "\ud83e", "socket=", "nbd",
        "tls-certificates=/etc", "base:", "kK", "inf", "NaN", "\u2215",
    ];

    public override string Name => "text";

    public override bool IsStream => false;

    public override MutantStream Make(Random random, bool legal)
    {
        byte variant = (byte)random.Next(Good.Length);
        string[] good = Good[variant];
        var text = new StringBuilder(good[random.Next(good.Length)]);
        for (int i = legal ? 0 : random.Next(1, 4); i > 0; i--)
        {
            int at = random.Next(text.Length + 1);
            switch (random.Next(6))
            {
                case 0 when at < text.Length:
                    text.Remove(at, random.Next(1, text.Length - at + 1));
                    break;
                case 1:
                    text.Insert(at, good[random.Next(good.Length)]);
                    break;
                case 2 when at < text.Length:
                    text[at] = (char)(text[at] ^ (1 << random.Next(8)));
                    break;
                case 3:
                    text.Insert(at, new string((char)random.Next('!', '~'), random.Next(1, 80)));
                    break;
                case 4 when variant == Names:
                    // Some are too long for the protocol, and some only because of what they are made of.
                    text.Insert(at, new string("n\u00e9\u2215"[random.Next(3)], random.Next(1300, 4200)));
                    break;
                default:
                    text.Insert(at, Junk[random.Next(Junk.Length)]);
                    break;
            }
        }
        // Only UTF-16 has halves of characters.
        byte[] bytes = variant == Names ? MemoryMarshal.AsBytes(text.ToString().AsSpan()).ToArray() : Encoding.UTF8.GetBytes(text.ToString());
        return new MutantStream(variant, [variant == Queries ? Query(bytes, legal ? null : random) : bytes]);
    }

    public override Task<long> RunAsync(MutantStream stream, bool legal)
    {
        byte[] bytes = stream.Joined();
        string text = Encoding.UTF8.GetString(bytes);
        switch (stream.Variant % Good.Length)
        {
            case Uris:
                CheckUri(text, legal);
                break;
            case Queries:
                CheckQuery(bytes, legal);
                break;
            case Names:
                CheckName(MemoryMarshal.Cast<byte, char>(bytes).ToString(), legal);
                break;
            case 2:
                MutationException.Require(Parse(() => NbdParse.Size(text), legal) is null or >= 0L, $"the size '{text}' is negative");
                break;
            case 3:
                Parse(() => NbdParse.Boolean(text), legal);
                break;
            case 4:
                MutationException.Require(
                    Parse(() => NbdParse.Probability(text), legal) is not { } odds || (double.IsFinite(odds) && odds >= 0), $"the probability '{text}'");
                break;
            case 5:
                MutationException.Require(
                    Parse(() => NbdParse.Delay(text), legal) is not { } delay || delay >= TimeSpan.Zero, $"the delay '{text}' is negative");
                break;
            default:
                MutationException.Require(
                    Parse(() => NbdParse.Integer(text, -10, 4096), legal: false) is not { } number || number is >= -10 and <= 4096, $"the number '{text}'");
                break;
        }
        return Task.FromResult(0L);
    }

    private static T? Parse<T>(Func<T> parse, bool legal)
        where T : struct
    {
        try
        {
            return parse();
        }
        catch (FormatException e) when (!legal)
        {
            MutationException.Require(e.Message.Length < 4096, $"a message of {e.Message.Length} characters");
            return null;
        }
    }

    private static void CheckUri(string text, bool legal)
    {
        NbdUri uri;
        try
        {
            uri = NbdUri.Parse(text);
        }
        catch (UriFormatException) when (!legal)
        {
            MutationException.Require(!NbdUri.TryParse(text, out _), $"'{text}' is a URI for one and not for the other");
            return;
        }
        MutationException.Require(uri.TlsCertificates is null, $"'{text}' names a local file");
        string again = uri.ToString();
        MutationException.Require(NbdUri.TryParse(again, out NbdUri? same), $"'{text}' became '{again}', which is none");
        MutationException.Require(
            same!.ToString() == again && same.ExportName == uri.ExportName && same.IsTls == uri.IsTls && same.UserName == uri.UserName
                && same.TlsHostName == uri.TlsHostName && same.TlsVerifyPeer == uri.TlsVerifyPeer,
            $"'{text}' became '{again}', which says something else");
    }

    private static void CheckName(string text, bool legal)
    {
        int length = 0;
        bool isString = true;
        for (ReadOnlySpan<char> rest = text; rest.Length > 0;)
        {
            isString &= Rune.DecodeFromUtf16(rest, out Rune rune, out int used) == OperationStatus.Done && rune.Value != 0;
            length += rune.Utf8SequenceLength;
            rest = rest[used..];
        }
        isString &= length <= 4096;
        MutationException.Require(isString || !legal, "a good name is none");
        MutationException.Require(IsTaken(() => WireString.Check(text, "name")) == isString, $"a string of {length} bytes: '{text}'");
        MutationException.Require(
            IsTaken(() => MetaContextName.Check(text)) == (isString && Regex.IsMatch(text, "^(base|nbd-server|qemu|x-[^:]*):")),
            $"the name of a meta context: '{text}'");
    }

    private static bool IsTaken(Action check)
    {
        try
        {
            check();
            return true;
        }
        catch (ArgumentException)
        {
            return false;
        }
    }

    private static byte[] Query(byte[] text, Random? random)
    {
        WireMessage message = new WireMessage().Text("disk").U32(FieldKind.Number, 2).Text("base:allocation");
        message.Text("").Fields[^1] = new WireField(FieldKind.Text, text);
        message.Repair();
        return random is null ? Mutator.Join([message]) : [.. Mutator.Spoil([message], [message], 0, random).SelectMany(chunk => chunk)];
    }

    private static void CheckQuery(byte[] bytes, bool legal)
    {
        MetaContextRequest? request = MetaContextRequest.Read(bytes, 1024, out string fault, out _);
        List<string>? expected = Strings(bytes);
        MutationException.Require(
            expected is null ? request is null : request is not null && expected.SequenceEqual([request.Name, .. request.Queries]),
            $"the queries were read otherwise than they are ({fault})");
        MutationException.Require(!legal || request is not null, "good queries were refused");
        foreach (string query in request?.Queries ?? [])
        {
            foreach (string name in (string[])["base:allocation", "x-test:second", "x-test:"])
            {
                byte[] asked = Encoding.UTF8.GetBytes(query);
                byte[] offered = Encoding.UTF8.GetBytes(name);
                bool same = asked.AsSpan().SequenceEqual(offered);
                bool begins = asked.Length > 0 && asked[^1] == ':' && offered.AsSpan().StartsWith(asked);
                MutationException.Require(MetaContextName.Matches(query, name, isList: false) == same, $"'{query}' and '{name}'");
                MutationException.Require(MetaContextName.Matches(query, name, isList: true) == (same || begins), $"'{query}' in a list and '{name}'");
            }
        }
    }

    /// <summary>The name and the queries, by the protocol's words; null if they break its rules.</summary>
    private static List<string>? Strings(byte[] bytes)
    {
        var strings = new List<string>();
        int at = 0;
        long left = 1;
        bool counted = false;
        while (left > 0)
        {
            if (bytes.Length - at < 4 || BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(at)) is var length && length > bytes.Length - at - 4)
            {
                return null;
            }
            byte[] part = bytes[(at + 4)..(at + 4 + (int)length)];
            string text = Encoding.UTF8.GetString(part);
            if (part.Length > 4096 || part.Contains((byte)0) || !Encoding.UTF8.GetBytes(text).AsSpan().SequenceEqual(part))
            {
                return null;
            }
            strings.Add(text);
            at += 4 + (int)length;
            left--;
            if (!counted)
            {
                if (bytes.Length - at < 4)
                {
                    return null;
                }
                left = BinaryPrimitives.ReadUInt32BigEndian(bytes.AsSpan(at));
                at += 4;
                counted = true;
                if (left > 1024)
                {
                    return null;
                }
            }
        }
        return at == bytes.Length ? strings : null;
    }
}
