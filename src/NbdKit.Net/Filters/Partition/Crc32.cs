namespace NbdKit.Filters.Partition;

/// <summary>The CRC-32 of Ethernet and ZIP (reflected polynomial EDB88320h), which GPT uses.</summary>
internal static class Crc32
{
    /// <summary>The state before the first byte.</summary>
    public const uint Start = uint.MaxValue;

    private static readonly uint[] Table = MakeTable();

    public static uint Append(uint state, ReadOnlySpan<byte> bytes)
    {
        foreach (byte b in bytes)
        {
            state = Table[(byte)state ^ b] ^ (state >> 8);
        }
        return state;
    }

    /// <summary>The checksum after the last byte.</summary>
    public static uint End(uint state) => ~state;

    private static uint[] MakeTable()
    {
        uint[] table = new uint[256];
        for (uint i = 0; i < table.Length; i++)
        {
            uint value = i;
            for (int bit = 0; bit < 8; bit++)
            {
                value = (value >> 1) ^ ((value & 1) * 0xEDB88320);
            }
            table[i] = value;
        }
        return table;
    }
}
