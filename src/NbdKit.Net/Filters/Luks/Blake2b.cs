using System.Buffers.Binary;
using System.Numerics;
using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>BLAKE2b without a key (RFC 7693), which Argon2 is made of and the framework does not have.</summary>
internal sealed class Blake2b
{
    private const int BlockBytes = 128;
    private const int Rounds = 12;

    private static readonly ulong[] Initial =
    [
        0x6A09E667F3BCC908, 0xBB67AE8584CAA73B, 0x3C6EF372FE94F82B, 0xA54FF53A5F1D36F1,
        0x510E527FADE682D1, 0x9B05688C2B3E6C1F, 0x1F83D9ABFB41BD6B, 0x5BE0CD19137E2179,
    ];

    // The order of the words of a block in each round; the last two rounds are the first two again.
    private static readonly byte[][] Order =
    [
        [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
        [14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3],
        [11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4],
        [7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8],
        [9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13],
        [2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9],
        [12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11],
        [13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10],
        [6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5],
        [10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0],
    ];

    private readonly ulong[] _state = [.. Initial];
    private readonly byte[] _block = new byte[BlockBytes];
    private readonly int _digestBytes;
    private int _used;
    private ulong _total;

    /// <param name="digestBytes">The length of the digest, from 1 to 64.</param>
    public Blake2b(int digestBytes)
    {
        _digestBytes = digestBytes;
        _state[0] ^= 0x01010000u ^ (uint)digestBytes;
    }

    /// <summary>The digest of some bytes, as long as the target.</summary>
    public static void Hash(ReadOnlySpan<byte> data, Span<byte> digest)
    {
        var hash = new Blake2b(digest.Length);
        hash.Add(data);
        hash.Finish(digest);
    }

    public void Add(ReadOnlySpan<byte> data)
    {
        while (data.Length > 0)
        {
            // The last block is known as such only when there is nothing more.
            if (_used == BlockBytes)
            {
                _total += BlockBytes;
                Compress(isLast: false);
                _used = 0;
            }
            int count = Math.Min(data.Length, BlockBytes - _used);
            data[..count].CopyTo(_block.AsSpan(_used));
            _used += count;
            data = data[count..];
        }
    }

    public void Add(int value)
    {
        Span<byte> bytes = stackalloc byte[4];
        BinaryPrimitives.WriteInt32LittleEndian(bytes, value);
        Add(bytes);
    }

    /// <summary>Ends the hash, and wipes what it has worked on.</summary>
    public void Finish(Span<byte> digest)
    {
        _total += (ulong)_used;
        _block.AsSpan(_used).Clear();
        Compress(isLast: true);
        Span<byte> all = stackalloc byte[64];
        for (int i = 0; i < _state.Length; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(all[(8 * i)..], _state[i]);
        }
        all[.._digestBytes].CopyTo(digest);
        CryptographicOperations.ZeroMemory(all);
        CryptographicOperations.ZeroMemory(_block);
    }

    private void Compress(bool isLast)
    {
        Span<ulong> words = stackalloc ulong[16];
        for (int i = 0; i < words.Length; i++)
        {
            words[i] = BinaryPrimitives.ReadUInt64LittleEndian(_block.AsSpan(8 * i));
        }
        Span<ulong> v = stackalloc ulong[16];
        _state.CopyTo(v);
        Initial.CopyTo(v[8..]);
        v[12] ^= _total;
        v[14] = isLast ? ~v[14] : v[14];
        for (int round = 0; round < Rounds; round++)
        {
            byte[] order = Order[round % Order.Length];
            for (int i = 0; i < 4; i++)
            {
                Mix(v, i, 4 + i, 8 + i, 12 + i, words[order[2 * i]], words[order[(2 * i) + 1]]);
            }
            for (int i = 0; i < 4; i++)
            {
                Mix(v, i, 4 + ((i + 1) % 4), 8 + ((i + 2) % 4), 12 + ((i + 3) % 4), words[order[8 + (2 * i)]], words[order[9 + (2 * i)]]);
            }
        }
        for (int i = 0; i < _state.Length; i++)
        {
            _state[i] ^= v[i] ^ v[i + 8];
        }
    }

    private static void Mix(Span<ulong> v, int a, int b, int c, int d, ulong x, ulong y)
    {
        v[a] += v[b] + x;
        v[d] = BitOperations.RotateRight(v[d] ^ v[a], 32);
        v[c] += v[d];
        v[b] = BitOperations.RotateRight(v[b] ^ v[c], 24);
        v[a] += v[b] + y;
        v[d] = BitOperations.RotateRight(v[d] ^ v[a], 16);
        v[c] += v[d];
        v[b] = BitOperations.RotateRight(v[b] ^ v[c], 63);
    }
}
