using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>PBKDF2 (RFC 8018).</summary>
internal sealed record Pbkdf2Derivation(HashSpec Hash, int Iterations, byte[] Salt) : KeyDerivation
{
    public override long Cost(int keyBytes) => (long)Iterations * ((keyBytes + Hash.Size - 1) / Hash.Size);

    public override void Derive(ReadOnlySpan<byte> passphrase, Span<byte> key)
        => Rfc2898DeriveBytes.Pbkdf2(passphrase, Salt, key, Iterations, Hash.Algorithm);
}
