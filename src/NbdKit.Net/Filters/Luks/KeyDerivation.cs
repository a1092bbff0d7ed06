namespace NbdKit.Filters.Luks;

/// <summary>A function that makes a key of a passphrase, slowly.</summary>
internal abstract record KeyDerivation
{
    /// <summary>The memory that it takes, in bytes.</summary>
    public virtual long MemoryBytes => 0;

    /// <summary>The time that it takes, counted in hashes of PBKDF2.</summary>
    public abstract long Cost(int keyBytes);

    public abstract void Derive(ReadOnlySpan<byte> passphrase, Span<byte> key);
}
