using System.Buffers.Binary;
using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>Makes the initialization vectors of sectors. For one thread at a time.</summary>
internal sealed class IvSource : IDisposable
{
    private readonly IvKind _kind;
    private readonly AesBlocks? _essiv;

    public IvSource(CipherSpec cipher, ReadOnlySpan<byte> key)
    {
        _kind = cipher.Iv;
        if (_kind == IvKind.Essiv)
        {
            using var salt = new Secret(cipher.IvHash.Size);
            CryptographicOperations.HashData(cipher.IvHash.Algorithm, key, salt.Span);
            _essiv = new AesBlocks(salt.Span);
        }
    }

    /// <summary>Fills the beginning of an array with the vectors of consecutive sectors.</summary>
    /// <param name="vectors">Receives 16 bytes for each sector.</param>
    /// <param name="count">The number of sectors.</param>
    /// <param name="sector">The number of the first.</param>
    /// <param name="step">By how much the number grows: it counts units of 512 bytes, however large the sectors are.</param>
    public void Fill(byte[] vectors, int count, ulong sector, int step)
    {
        Span<byte> rest = vectors.AsSpan(0, count * CipherSpec.Block);
        rest.Clear();
        for (; rest.Length > 0; rest = rest[CipherSpec.Block..])
        {
            if (_kind == IvKind.Plain64BigEndian)
            {
                BinaryPrimitives.WriteUInt64BigEndian(rest[8..], sector);
            }
            else
            {
                BinaryPrimitives.WriteUInt64LittleEndian(rest, _kind == IvKind.Plain ? (uint)sector : sector);
            }
            sector += (ulong)step;
        }
        _essiv?.Encrypt(vectors, count * CipherSpec.Block);
    }

    public void Dispose() => _essiv?.Dispose();
}
