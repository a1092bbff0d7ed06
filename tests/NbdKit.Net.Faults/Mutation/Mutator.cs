using System.Buffers.Binary;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>Spoils sessions: their fields, their messages, their bytes, and how these arrive.</summary>
internal static class Mutator
{
    private static readonly ulong[] Boundaries =
    [
        0, 1, 2, 3, 7, 8, 9, 16, 255, 256, 511, 512, 513, 4095, 4096, 4097, 0x7fff, 0x8000, 0xffff, 0x10000, 0x10001,
        65_535, 65_537, 128 << 10, (128 << 10) + 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 32 << 20,
        int.MaxValue, 1UL << 31, uint.MaxValue - 1, uint.MaxValue, 1UL << 32, (1UL << 32) + 1,
        long.MaxValue - 1, long.MaxValue, 1UL << 63, ulong.MaxValue - 1, ulong.MaxValue,
    ];

    private static readonly ulong[] Magics =
    [
        Magic.Nbd, Magic.IHaveOpt, Magic.OptionReply, Magic.Request, Magic.SimpleReply, Magic.Chunk, Magic.ExtendedRequest, Magic.ExtendedReply,
        0x0000_4202_8186_1253, .. Magic.Historic,
    ];

    private static readonly byte[][] Texts =
    [
        [], "missing"u8.ToArray(), "odd"u8.ToArray(), "huge"u8.ToArray(), [0], [0xff], [0xfe], [0xef, 0xbf, 0xbd], [0xc0, 0x80], [0xed, 0xa0, 0x80],
        "base:"u8.ToArray(), "base:allocation"u8.ToArray(), ":"u8.ToArray(), "x-test:"u8.ToArray(), "x-test:second"u8.ToArray(), "a\0b"u8.ToArray(),
        [.. Enumerable.Repeat((byte)'n', 255)], [.. Enumerable.Repeat((byte)'n', 4096)], [.. Enumerable.Repeat((byte)'n', 4097)],
        [.. Enumerable.Repeat("\U0001f9ca"u8.ToArray(), 1024).SelectMany(part => part)],
    ];

    /// <summary>Spoils a session.</summary>
    /// <param name="session">It.</param>
    /// <param name="other">Another one, to splice with.</param>
    /// <param name="keep">So many messages at the beginning stay as they are.</param>
    /// <param name="random">Decides how.</param>
    public static byte[][] Spoil(List<WireMessage> session, List<WireMessage> other, int keep, Random random)
    {
        List<WireMessage> messages = [.. session.Select(message => message.Copy())];
        for (int i = random.Next(1, 4); i > 0; i--)
        {
            if (messages.Count <= keep)
            {
                break;
            }
            int at = random.Next(keep, messages.Count);
            switch (random.Next(12))
            {
                case 0:
                    messages.RemoveAt(at);
                    break;
                case 1:
                    // At times more often than anybody counts.
                    bool isFlood = random.Next(16) == 0 && messages[at].Fields.Sum(field => field.Bytes.Length) < 256;
                    messages.InsertRange(at, Enumerable.Range(0, isFlood ? 70 : 1).Select(_ => messages[at].Copy()).ToList());
                    break;
                case 2:
                    int to = random.Next(keep, messages.Count);
                    (messages[at], messages[to]) = (messages[to], messages[at]);
                    break;
                case 3:
                    messages.RemoveRange(at, messages.Count - at);
                    messages.AddRange(other.Skip(random.Next(other.Count)).Select(message => message.Copy()));
                    break;
                default:
                    SpoilField(messages[at], random);
                    break;
            }
        }
        byte[] bytes = Join(messages);
        int fixedBytes = messages.Take(keep).Sum(message => message.Fields.Sum(field => field.Bytes.Length));
        if (random.Next(8) == 0 && bytes.Length > fixedBytes)
        {
            bytes[random.Next(fixedBytes, bytes.Length)] ^= (byte)(1 << random.Next(8));
        }
        if (random.Next(8) == 0 && bytes.Length > fixedBytes)
        {
            bytes = bytes[..random.Next(fixedBytes, bytes.Length)];
        }
        return Chop(bytes, random);
    }

    public static byte[] Join(IEnumerable<WireMessage> messages)
        => [.. messages.SelectMany(message => message.Fields).SelectMany(field => field.Bytes)];

    /// <summary>The pieces in which bytes arrive: often all in one, at times every byte alone.</summary>
    public static byte[][] Chop(byte[] bytes, Random random)
    {
        // A long stream in single bytes would cost more than it may.
        int most = Math.Max(random.Next(8) switch { < 4 => int.MaxValue, < 6 => 200, 6 => 20, _ => 1 }, bytes.Length >> 11);
        var chunks = new List<byte[]>();
        for (int at = 0; at < bytes.Length;)
        {
            int length = Math.Min(bytes.Length - at, most == int.MaxValue ? most : random.Next(1, most + 1));
            chunks.Add(bytes[at..(at + length)]);
            at += length;
        }
        return [.. chunks];
    }

    private static void SpoilField(WireMessage message, Random random)
    {
        if (message.Fields.Count == 0)
        {
            return;
        }
        int at = random.Next(message.Fields.Count);
        WireField field = message.Fields[at];
        switch (random.Next(10))
        {
            case 0:
                message.Fields.RemoveAt(at);
                break;
            case 1:
                message.Fields.Insert(at, field);
                break;
            case 2 or 3 when field.Kind is FieldKind.Text or FieldKind.Data:
                message.Fields[at] = field with { Bytes = [.. field.Bytes, .. new byte[random.Next(1, 600)]] };
                break;
            default:
                message.Fields[at] = field with { Bytes = Other(field, random) };
                break;
        }
        // What is longer or shorter now gets as far as the parser only if the lengths before it agree.
        if (random.Next(3) > 0 && field.Kind != FieldKind.Length)
        {
            message.Repair();
        }
    }

    private static byte[] Other(WireField field, Random random)
    {
        if (field.Kind is FieldKind.Text or FieldKind.Data)
        {
            return Texts[random.Next(Texts.Length)];
        }
        byte[] wide = new byte[8];
        field.Bytes.CopyTo(wide.AsSpan(8 - field.Bytes.Length));
        ulong value = BinaryPrimitives.ReadUInt64BigEndian(wide);
        value = field.Kind switch
        {
            FieldKind.Magic when random.Next(4) > 0 => Magics[random.Next(Magics.Length)],
            FieldKind.Type when random.Next(4) > 0 => (ulong)random.Next(14),
            FieldKind.Flags when random.Next(4) > 0 => value ^ (1UL << random.Next(8 * field.Bytes.Length)),
            _ => random.Next(4) switch
            {
                0 => value + 1,
                1 => value - 1,
                2 => value ^ (1UL << random.Next(8 * field.Bytes.Length)),
                _ => Boundaries[random.Next(Boundaries.Length)] + (random.Next(4) == 0 ? value : 0),
            },
        };
        BinaryPrimitives.WriteUInt64BigEndian(wide, value);
        return wide[^field.Bytes.Length..];
    }
}
