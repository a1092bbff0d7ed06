using System.Buffers.Binary;

namespace NbdKit.Tests.Testing;

/// <summary>One reply to an option.</summary>
internal sealed record OptionReply(uint Option, uint Type, byte[] Data)
{
    public bool IsError => (Type & Rep.ErrorBit) != 0;

    public bool IsFinal => IsError || Type == Rep.Ack;

    /// <summary>The whole data as text: the message of an error.</summary>
    public string Text => WireText.Check(Data);

    /// <summary>The information type of an NBD_REP_INFO.</summary>
    public ushort InfoType => BinaryPrimitives.ReadUInt16BigEndian(Data);

    /// <summary>What follows the information type of an NBD_REP_INFO.</summary>
    public string InfoText => WireText.Check(Data.AsSpan(2));

    /// <summary>The name in an NBD_REP_SERVER.</summary>
    public string ServerName => WireText.Check(Data.AsSpan(4, (int)BinaryPrimitives.ReadUInt32BigEndian(Data)));

    /// <summary>What follows the name in an NBD_REP_SERVER.</summary>
    public string ServerDescription
        => WireText.Check(Data.AsSpan(4 + (int)BinaryPrimitives.ReadUInt32BigEndian(Data)));

    /// <summary>The id in an NBD_REP_META_CONTEXT.</summary>
    public uint ContextId => BinaryPrimitives.ReadUInt32BigEndian(Data);

    /// <summary>The name in an NBD_REP_META_CONTEXT.</summary>
    public string ContextName => WireText.Check(Data.AsSpan(4));

    public override string ToString() => $"reply 0x{Type:x8} to option {Option} with {Data.Length} bytes";
}
