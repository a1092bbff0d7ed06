using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>Tells the key of the disk from any other: the result of PBKDF2 on it.</summary>
internal sealed record KeyDigest(HashSpec Hash, int Iterations, byte[] Salt, byte[] Value)
{
    public long Cost => (long)Iterations * ((Value.Length + Hash.Size - 1) / Hash.Size);

    public bool IsOf(ReadOnlySpan<byte> key)
    {
        Span<byte> digest = stackalloc byte[Value.Length];
        Rfc2898DeriveBytes.Pbkdf2(key, Salt, digest, Iterations, Hash.Algorithm);
        return CryptographicOperations.FixedTimeEquals(digest, Value);
    }
}
