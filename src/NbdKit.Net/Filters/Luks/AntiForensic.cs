using System.Buffers.Binary;
using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>
/// The anti-forensic splitter of LUKS ("AF-splitter" in the LUKS1 On-Disk Format Specification): a key is spread over so many
/// stripes that it is gone when a few bytes of them are.
/// </summary>
internal static class AntiForensic
{
    /// <summary>Puts a key together.</summary>
    /// <param name="material">The stripes, each as long as the key.</param>
    /// <param name="key">Receives the key.</param>
    /// <param name="stripes">The number of stripes.</param>
    /// <param name="hash">The hash that spreads changes.</param>
    public static void Merge(ReadOnlySpan<byte> material, Span<byte> key, int stripes, HashSpec hash)
    {
        key.Clear();
        for (int i = 0; i < stripes; i++)
        {
            if (i > 0)
            {
                Diffuse(key, hash);
            }
            ReadOnlySpan<byte> stripe = material.Slice(i * key.Length, key.Length);
            for (int j = 0; j < key.Length; j++)
            {
                key[j] ^= stripe[j];
            }
        }
    }

    // Replaces each piece of the length of a digest by the digest of its number and itself.
    internal static void Diffuse(Span<byte> key, HashSpec hash)
    {
        Span<byte> input = stackalloc byte[4 + hash.Size];
        Span<byte> digest = stackalloc byte[hash.Size];
        uint number = 0;
        for (Span<byte> rest = key; rest.Length > 0; number++)
        {
            int count = Math.Min(rest.Length, hash.Size);
            BinaryPrimitives.WriteUInt32BigEndian(input, number);
            rest[..count].CopyTo(input[4..]);
            CryptographicOperations.HashData(hash.Algorithm, input[..(4 + count)], digest);
            digest[..count].CopyTo(rest);
            rest = rest[count..];
        }
        CryptographicOperations.ZeroMemory(input);
        CryptographicOperations.ZeroMemory(digest);
    }
}
