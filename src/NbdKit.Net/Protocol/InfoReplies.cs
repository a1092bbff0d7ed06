using System.Buffers.Binary;
using System.Numerics;

namespace NbdKit.Protocol;

/// <summary>What a client learns from the NBD_REP_INFO replies to one NBD_OPT_INFO or NBD_OPT_GO, in whatever order they come.</summary>
internal sealed class InfoReplies
{
    /// <summary>The size of the export, or null if the server has not said it.</summary>
    public ulong? Size { get; private set; }

    public TransmissionFlags Flags { get; private set; }

    public BlockSize BlockSize { get; private set; }

    public string? Description { get; private set; }

    public string? CanonicalName { get; private set; }

    /// <summary>Takes what the reply to NBD_OPT_EXPORT_NAME says.</summary>
    public void Add(ulong size, TransmissionFlags flags)
    {
        Size = size;
        Flags = flags;
    }

    /// <summary>Takes the payload of one reply; what is wrong with it, or null. Types that are not known are ignored.</summary>
    public string? Add(ReadOnlySpan<byte> bytes)
    {
        if (bytes.Length < 2)
        {
            return "it is shorter than 2 bytes";
        }
        ReadOnlySpan<byte> content = bytes[2..];
        var type = (InfoType)BinaryPrimitives.ReadUInt16BigEndian(bytes);
        return type switch
        {
            InfoType.Export => AddExport(content),
            InfoType.BlockSize => AddBlockSize(content),
            InfoType.Name or InfoType.Description => AddText(type, content),
            _ => null,
        };
    }

    // NBD_INFO_EXPORT: type 16, size 64, transmission flags 16.
    private string? AddExport(ReadOnlySpan<byte> content)
    {
        if (content.Length != 10)
        {
            return $"NBD_INFO_EXPORT has {content.Length + 2} bytes instead of 12";
        }
        Add(
            BinaryPrimitives.ReadUInt64BigEndian(content),
            (TransmissionFlags)BinaryPrimitives.ReadUInt16BigEndian(content[8..]));
        return null;
    }

    // NBD_INFO_BLOCK_SIZE: type 16, minimum 32, preferred 32, maximum payload 32.
    private string? AddBlockSize(ReadOnlySpan<byte> content)
    {
        if (content.Length != 12)
        {
            return $"NBD_INFO_BLOCK_SIZE has {content.Length + 2} bytes instead of 14";
        }
        uint minimum = BinaryPrimitives.ReadUInt32BigEndian(content);
        uint preferred = BinaryPrimitives.ReadUInt32BigEndian(content[4..]);
        uint maximum = BinaryPrimitives.ReadUInt32BigEndian(content[8..]);
        // The minimum and the maximum have to be obeyed, so they have to make sense. The preferred size is advice.
        if (!BitOperations.IsPow2(minimum) || minimum > 65_536 || maximum < Math.Max(minimum, 512) || preferred < minimum)
        {
            return $"block sizes of {minimum}, {preferred} and {maximum} bytes make no sense";
        }
        long largest = maximum == BlockSize.Unlimited ? maximum : maximum & -(long)minimum;
        long advice = Math.Clamp(RoundDownToPow2(preferred), Math.Max(minimum, 512), 32 << 20);
        BlockSize = new BlockSize(minimum, Math.Min(advice, RoundDownToPow2(largest)), largest);
        return null;
    }

    // NBD_INFO_NAME, NBD_INFO_DESCRIPTION: type 16, then the string.
    private string? AddText(InfoType type, ReadOnlySpan<byte> content)
    {
        if (!WireString.TryDecode(content, out string text))
        {
            return "it is not a valid string";
        }
        CanonicalName = type == InfoType.Name ? text : CanonicalName;
        Description = type == InfoType.Description ? text : Description;
        return null;
    }

    private static long RoundDownToPow2(long value) => 1L << BitOperations.Log2((ulong)value);
}
