namespace NbdKit.Filters.Luks;

/// <summary>Argon2, of which LUKS uses the variants i and id.</summary>
internal sealed record Argon2Derivation(Argon2Kind Kind, int Passes, int MemoryKiB, int Lanes, byte[] Salt) : KeyDerivation
{
    public override long MemoryBytes => MemoryKiB * 1024L;

    // To fill a block takes about as long as a few hashes.
    public override long Cost(int keyBytes) => 4L * Passes * MemoryKiB;

    public override void Derive(ReadOnlySpan<byte> passphrase, Span<byte> key)
    {
        try
        {
            Argon2.Derive(Kind, passphrase, Salt, Passes, MemoryKiB, Lanes, key);
        }
        catch (OutOfMemoryException e)
        {
            throw new NbdException(NbdError.OutOfMemory, $"there is no memory of {MemoryKiB} KiB to try a key slot with", e);
        }
    }
}
