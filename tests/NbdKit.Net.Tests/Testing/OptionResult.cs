using System.Buffers.Binary;

namespace NbdKit.Tests.Testing;

/// <summary>All replies to one option; the last one is the final one.</summary>
internal sealed record OptionResult(IReadOnlyList<OptionReply> Replies)
{
    public OptionReply Final => Replies[^1];

    public uint Type => Final.Type;

    public bool IsAck => Type == Rep.Ack;

    public IReadOnlyList<OptionReply> Before => [.. Replies.Take(Replies.Count - 1)];

    /// <summary>The size that NBD_INFO_EXPORT told.</summary>
    public ulong Size => BinaryPrimitives.ReadUInt64BigEndian(Info(InfoType.Export)!.Data.AsSpan(2));

    /// <summary>The transmission flags that NBD_INFO_EXPORT told.</summary>
    public ushort Flags => BinaryPrimitives.ReadUInt16BigEndian(Info(InfoType.Export)!.Data.AsSpan(10));

    /// <summary>The only information of a type, or null.</summary>
    public OptionReply? Info(ushort type)
        => Replies.SingleOrDefault(reply => reply.Type == Rep.Info && reply.InfoType == type);

    /// <summary>The three numbers of NBD_INFO_BLOCK_SIZE, or null if it was not sent.</summary>
    public (uint Minimum, uint Preferred, uint Maximum)? BlockSize
    {
        get
        {
            if (Info(InfoType.BlockSize) is not { } info)
            {
                return null;
            }
            Assert.That(info.Data, Has.Length.EqualTo(14));
            return (
                BinaryPrimitives.ReadUInt32BigEndian(info.Data.AsSpan(2)),
                BinaryPrimitives.ReadUInt32BigEndian(info.Data.AsSpan(6)),
                BinaryPrimitives.ReadUInt32BigEndian(info.Data.AsSpan(10)));
        }
    }
}
