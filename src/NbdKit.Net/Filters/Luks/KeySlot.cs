using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>One copy of the key of the disk, encrypted with a passphrase of its own.</summary>
internal sealed record KeySlot
{
    /// <summary>Its number, for messages.</summary>
    public required string Name { get; init; }

    /// <summary>The length of the key of the disk.</summary>
    public required int KeyBytes { get; init; }

    /// <summary>The hash of PBKDF2, which makes a key of the passphrase.</summary>
    public required HashSpec Hash { get; init; }

    public required int Iterations { get; init; }

    public required byte[] Salt { get; init; }

    /// <summary>The cipher of the stripes.</summary>
    public required CipherSpec Cipher { get; init; }

    /// <summary>The length of the key of the stripes.</summary>
    public required int AreaKeyBytes { get; init; }

    /// <summary>Where the stripes begin on the disk.</summary>
    public required long Offset { get; init; }

    public required int Stripes { get; init; }

    public required HashSpec StripeHash { get; init; }

    /// <summary>Tells whether the key is right.</summary>
    public required KeyDigest Digest { get; init; }

    /// <summary>The bytes that the stripes take on the disk, in whole sectors.</summary>
    public int AreaBytes => ((KeyBytes * Stripes) + 511) / 512 * 512;

    /// <summary>What trying it costs: the number of times that PBKDF2 hashes.</summary>
    public long Cost
        => ((long)Iterations * ((AreaKeyBytes + Hash.Size - 1) / Hash.Size))
            + ((long)Digest.Iterations * ((Digest.Value.Length + Digest.Hash.Size - 1) / Digest.Hash.Size));

    /// <summary>Tries a passphrase; takes as long as the slot's maker wanted.</summary>
    /// <param name="passphrase">The passphrase.</param>
    /// <param name="area">The stripes as they are on the disk; decrypted in place.</param>
    /// <returns>The key of the disk, which the caller disposes of, or null if the passphrase is another one.</returns>
    public Secret? Open(ReadOnlySpan<byte> passphrase, Span<byte> area)
    {
        using var areaKey = new Secret(AreaKeyBytes);
        Rfc2898DeriveBytes.Pbkdf2(passphrase, Salt, areaKey.Span, Iterations, Hash.Algorithm);
        using (var cipher = new SectorCipher(Cipher, areaKey, 512, 0))
        {
            cipher.Decrypt(area, area, 0);
        }
        var key = new Secret(KeyBytes);
        AntiForensic.Merge(area, key.Span, Stripes, StripeHash);
        if (Digest.IsOf(key.Span))
        {
            return key;
        }
        key.Dispose();
        return null;
    }
}
