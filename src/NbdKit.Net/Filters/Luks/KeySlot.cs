namespace NbdKit.Filters.Luks;

/// <summary>One copy of the key of the disk, encrypted with a passphrase of its own.</summary>
internal sealed record KeySlot
{
    /// <summary>Its number, for messages.</summary>
    public required string Name { get; init; }

    /// <summary>The length of the key of the disk.</summary>
    public required int KeyBytes { get; init; }

    /// <summary>How a passphrase becomes the key of the stripes.</summary>
    public required KeyDerivation Derivation { get; init; }

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

    /// <summary>What trying it costs: about the number of times that PBKDF2 hashes, or as much time.</summary>
    public long Cost => Derivation.Cost(AreaKeyBytes) + Digest.Cost;

    /// <summary>Tries a passphrase; takes as long as the slot's maker wanted.</summary>
    /// <param name="passphrase">The passphrase.</param>
    /// <param name="area">The stripes as they are on the disk; decrypted in place.</param>
    /// <returns>The key of the disk, which the caller disposes of, or null if the passphrase is another one.</returns>
    public Secret? Open(ReadOnlySpan<byte> passphrase, Span<byte> area)
    {
        using var areaKey = new Secret(AreaKeyBytes);
        Derivation.Derive(passphrase, areaKey.Span);
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
