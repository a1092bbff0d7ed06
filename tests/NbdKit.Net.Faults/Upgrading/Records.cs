using NbdKit.Faults.Mutation;

namespace NbdKit.Faults.Upgrading;

/// <summary>What travels once TLS has begun: records, and nothing else.</summary>
internal static class Records
{
    /// <summary>Fails unless all of the bytes are whole records.</summary>
    public static void Check(ReadOnlySpan<byte> bytes, string whose)
    {
        int at = 0;
        while (at < bytes.Length)
        {
            // type 8, version 16, length 16
            MutationException.Require(
                bytes.Length - at >= 5 && bytes[at] is >= 20 and <= 23 && bytes[at + 1] == 3,
                $"the {whose} sent plain text after the acknowledgement, from byte {at}: {Convert.ToHexStringLower(bytes[at..])}");
            at += 5 + ((bytes[at + 3] << 8) | bytes[at + 4]);
        }
        MutationException.Require(at == bytes.Length, $"the {whose} cut a record");
    }
}
