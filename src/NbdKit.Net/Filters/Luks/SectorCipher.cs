using Microsoft.Extensions.ObjectPool;

namespace NbdKit.Filters.Luks;

/// <summary>Encrypts and decrypts whole sectors with one key. Safe for use by several threads, and without allocation.</summary>
internal sealed class SectorCipher : IDisposable
{
    private readonly ObjectPool<CipherWorker> _workers;
    private readonly ulong _firstSector;

    /// <param name="cipher">The cipher.</param>
    /// <param name="key">Its key; owned by the caller, and valid until this is disposed of.</param>
    /// <param name="sectorSize">From 512 to 4096 bytes.</param>
    /// <param name="firstSector">What is added to the numbers of sectors.</param>
    public SectorCipher(CipherSpec cipher, Secret key, int sectorSize, ulong firstSector)
    {
        SectorSize = sectorSize;
        _firstSector = firstSector;
        // Of a disposable object the provider makes a pool that disposes of what it holds.
        _workers = new DefaultObjectPoolProvider().Create(new Policy(cipher, key, sectorSize));
    }

    public int SectorSize { get; }

    /// <summary>Encrypts; the target may be the source.</summary>
    public void Encrypt(ReadOnlySpan<byte> source, Span<byte> target, long offset)
    {
        CipherWorker worker = _workers.Get();
        for (int at = 0; at < source.Length; at += CipherWorker.BatchBytes)
        {
            int count = Math.Min(source.Length - at, CipherWorker.BatchBytes);
            worker.Encrypt(source.Slice(at, count), target.Slice(at, count), SectorOf(offset + at));
        }
        _workers.Return(worker);
    }

    /// <summary>Decrypts; the target may be the source.</summary>
    public void Decrypt(ReadOnlySpan<byte> source, Span<byte> target, long offset)
    {
        CipherWorker worker = _workers.Get();
        for (int at = 0; at < source.Length; at += CipherWorker.BatchBytes)
        {
            int count = Math.Min(source.Length - at, CipherWorker.BatchBytes);
            worker.Decrypt(source.Slice(at, count), target.Slice(at, count), SectorOf(offset + at));
        }
        _workers.Return(worker);
    }

    public void Dispose() => (_workers as IDisposable)?.Dispose();

    private ulong SectorOf(long offset) => _firstSector + (ulong)(offset / 512);

    private sealed class Policy(CipherSpec cipher, Secret key, int sectorSize) : IPooledObjectPolicy<CipherWorker>
    {
        public CipherWorker Create() => CipherWorker.Create(cipher, key.Span, sectorSize);

        public bool Return(CipherWorker obj) => true;
    }
}
