using System.Buffers.Binary;

namespace NbdKit.Protocol;

/// <summary>
/// The payload of NBD_CMD_BLOCK_STATUS with extended headers: effect length 64, then for each meta context that is asked for its
/// id 32.
/// </summary>
internal static class BlockStatusPayload
{
    private const int LengthSize = 8;

    private const int IdSize = 4;

    /// <summary>Whether a payload of this size can name at least one context and none twice.</summary>
    public static bool IsPlausible(ulong size, int contexts)
        => size >= LengthSize + IdSize
            && size <= LengthSize + ((ulong)contexts * IdSize)
            && (size - LengthSize) % IdSize == 0;

    public static ulong Length(ReadOnlySpan<byte> payload) => BinaryPrimitives.ReadUInt64BigEndian(payload);

    public static int Count(ReadOnlySpan<byte> payload) => (payload.Length - LengthSize) / IdSize;

    public static uint Id(ReadOnlySpan<byte> payload, int index)
        => BinaryPrimitives.ReadUInt32BigEndian(payload[(LengthSize + (index * IdSize))..]);

    /// <summary>Whether every id is one of 1 to <paramref name="contexts"/>, and none is there twice.</summary>
    public static bool HasValidIds(ReadOnlySpan<byte> payload, int contexts)
    {
        var seen = new HashSet<uint>();
        for (int i = 0; i < Count(payload); i++)
        {
            uint id = Id(payload, i);
            if (id < 1 || id > (uint)contexts || !seen.Add(id))
            {
                return false;
            }
        }
        return true;
    }
}
