using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>Encrypts and decrypts batches of whole sectors. For one thread at a time; the memory that it works in is its own.</summary>
internal abstract class CipherWorker : IDisposable
{
    /// <summary>The largest batch in bytes: small enough for the cache of a processor, and a multiple of every sector size.</summary>
    public const int BatchBytes = 16 << 10;

    private readonly IvSource _ivSource;
    private readonly int _sectorSize;

    protected CipherWorker(CipherSpec cipher, ReadOnlySpan<byte> key, int sectorSize)
    {
        _ivSource = new IvSource(cipher, key);
        _sectorSize = sectorSize;
    }

    protected int SectorSize => _sectorSize;

    /// <summary>The blocks that are worked on.</summary>
    protected byte[] Blocks { get; } = GC.AllocateArray<byte>(BatchBytes, pinned: true);

    /// <summary>The initialization vectors of the sectors of a batch.</summary>
    protected byte[] Vectors { get; } = GC.AllocateArray<byte>(BatchBytes / 512 * CipherSpec.Block, pinned: true);

    /// <summary>Encrypts one batch; the target may be the source.</summary>
    /// <param name="source">At most <see cref="BatchBytes"/> of whole sectors.</param>
    /// <param name="target">Receives as many.</param>
    /// <param name="sector">The number of the first sector, in units of 512 bytes.</param>
    public abstract void Encrypt(ReadOnlySpan<byte> source, Span<byte> target, ulong sector);

    /// <summary>Decrypts one batch; the target may be the source.</summary>
    /// <param name="source">At most <see cref="BatchBytes"/> of whole sectors.</param>
    /// <param name="target">Receives as many.</param>
    /// <param name="sector">The number of the first sector, in units of 512 bytes.</param>
    public abstract void Decrypt(ReadOnlySpan<byte> source, Span<byte> target, ulong sector);

    public static CipherWorker Create(CipherSpec cipher, ReadOnlySpan<byte> key, int sectorSize)
        => cipher.IsXts ? new XtsWorker(cipher, key, sectorSize) : new CbcWorker(cipher, key, sectorSize);

    public virtual void Dispose()
    {
        _ivSource.Dispose();
        // After a key slot was read, it is parts of the key that are left here.
        CryptographicOperations.ZeroMemory(Blocks);
    }

    /// <summary>Fills <see cref="Vectors"/> for a batch, and returns the number of its sectors.</summary>
    protected int FillVectors(int length, ulong sector)
    {
        int sectors = length / _sectorSize;
        _ivSource.Fill(Vectors, sectors, sector, _sectorSize / 512);
        return sectors;
    }
}
