using System.Buffers.Binary;
using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Mutation;

/// <summary>A message as the fields that it is made of.</summary>
internal sealed class WireMessage
{
    // A length that counts all fields behind it.
    private const int Rest = int.MaxValue;

    public List<WireField> Fields { get; private init; } = [];

    /// <summary>An option with its data: fields that are added are part of the data, and of its length.</summary>
    public static WireMessage Option(uint option)
        => new WireMessage().U64(FieldKind.Magic, Magic.IHaveOpt).U32(FieldKind.Type, option).Length(4);

    /// <summary>A reply to an option, in the same way.</summary>
    public static WireMessage OptionReply(uint option, uint type)
        => new WireMessage().U64(FieldKind.Magic, Magic.OptionReply).U32(FieldKind.Type, option).U32(FieldKind.Type, type).Length(4);

    /// <summary>A request; a payload that is added sets its length.</summary>
    public static WireMessage Request(bool extended, ushort type, ushort flags, ulong cookie, ulong offset, ulong length)
    {
        WireMessage message = new WireMessage()
            .U32(FieldKind.Magic, extended ? Magic.ExtendedRequest : Magic.Request)
            .U16(FieldKind.Flags, flags)
            .U16(FieldKind.Type, type)
            .U64(FieldKind.Cookie, cookie)
            .U64(FieldKind.Number, offset);
        return extended ? message.U64(FieldKind.Number, length) : message.U32(FieldKind.Number, (uint)length);
    }

    /// <summary>A chunk of a structured reply, not its last: fields that are added are its payload.</summary>
    public static WireMessage Chunk(bool extended, ushort type, ulong cookie, ulong offset)
    {
        WireMessage message = new WireMessage()
            .U32(FieldKind.Magic, extended ? Magic.ExtendedReply : Magic.Chunk)
            .U16(FieldKind.Flags, 0)
            .U16(FieldKind.Type, type)
            .U64(FieldKind.Cookie, cookie);
        return extended ? message.U64(FieldKind.Number, offset).Length(8) : message.Length(4);
    }

    public WireMessage U16(FieldKind kind, ushort value)
    {
        byte[] bytes = new byte[2];
        BinaryPrimitives.WriteUInt16BigEndian(bytes, value);
        return Add(kind, bytes);
    }

    public WireMessage U32(FieldKind kind, uint value)
    {
        byte[] bytes = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(bytes, value);
        return Add(kind, bytes);
    }

    public WireMessage U64(FieldKind kind, ulong value)
    {
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64BigEndian(bytes, value);
        return Add(kind, bytes);
    }

    /// <summary>A string with its length in front.</summary>
    public WireMessage Text(string text, int lengthBytes = 4)
    {
        Fields.Add(new WireField(FieldKind.Length, new byte[lengthBytes], Covers: 1));
        return Add(FieldKind.Text, Encoding.UTF8.GetBytes(text));
    }

    /// <summary>All fields of another message.</summary>
    public WireMessage Append(WireMessage other)
    {
        Fields.AddRange(other.Fields);
        return this;
    }

    public WireMessage Add(FieldKind kind, byte[] bytes)
    {
        Fields.Add(new WireField(kind, bytes));
        return this;
    }

    /// <summary>The payload of a request, whose length is the field before it.</summary>
    public WireMessage Payload(byte[] bytes) => CountRest().Add(FieldKind.Data, bytes);

    /// <summary>The payload of a block status, whose length is the field before it: effect length 64, then ids of 32 bits.</summary>
    public WireMessage StatusPayload(ulong effectLength, params ReadOnlySpan<uint> contexts)
    {
        CountRest().U64(FieldKind.Number, effectLength);
        foreach (uint context in contexts)
        {
            U32(FieldKind.Type, context);
        }
        return Repair();
    }

    /// <summary>Makes all lengths right.</summary>
    public WireMessage Repair()
    {
        for (int i = Fields.Count - 1; i >= 0; i--)
        {
            if (Fields[i].Covers == 0)
            {
                continue;
            }
            long length = Fields.Skip(i + 1).Take(Fields[i].Covers).Sum(field => (long)field.Bytes.Length);
            byte[] wide = new byte[8];
            BinaryPrimitives.WriteInt64BigEndian(wide, length);
            Fields[i] = Fields[i] with { Bytes = wide[^Fields[i].Bytes.Length..] };
        }
        return this;
    }

    /// <summary>A copy that can be changed without this one.</summary>
    public WireMessage Copy() => new() { Fields = [.. Fields] };

    private WireMessage CountRest()
    {
        Fields[^1] = Fields[^1] with { Kind = FieldKind.Length, Covers = Rest };
        return this;
    }

    private WireMessage Length(int bytes)
    {
        Fields.Add(new WireField(FieldKind.Length, new byte[bytes], Rest));
        return this;
    }
}
