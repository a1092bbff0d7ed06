using System.Buffers.Binary;
using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>
/// Argon2 version 1.3 (RFC 9106): makes a key of a passphrase with so much memory that trying many at once is costly. The
/// framework does not have it.
/// </summary>
/// <remarks>
/// Memory is a matrix of blocks of 1 KiB, with a row for each lane. It is filled in four vertical slices; lanes of one slice do
/// not depend on each other, and are filled in parallel.
/// </remarks>
internal sealed partial class Argon2
{
    private const int Version = 0x13;
    private const int Slices = 4;
    private const int BlockBytes = 1024;
    private const int BlockWords = BlockBytes / 8;

    private readonly Argon2Kind _kind;
    private readonly int _passes;
    private readonly int _lanes;
    private readonly int _segment;
    private readonly int _columns;
    private readonly ulong[] _memory;

    private Argon2(Argon2Kind kind, int passes, int memoryKiB, int lanes)
    {
        _kind = kind;
        _passes = passes;
        _lanes = lanes;
        _segment = memoryKiB / (Slices * lanes);
        _columns = _segment * Slices;
        _memory = new ulong[(long)_columns * lanes * BlockWords];
    }

    /// <summary>Makes a key.</summary>
    /// <param name="kind">The variant.</param>
    /// <param name="passphrase">The passphrase.</param>
    /// <param name="salt">The salt.</param>
    /// <param name="passes">How often to go over the memory, at least once.</param>
    /// <param name="memoryKiB">How much memory to use, at least 8 for each lane.</param>
    /// <param name="lanes">The number of lanes.</param>
    /// <param name="key">Receives the key.</param>
    /// <param name="secret">A second secret; LUKS has none.</param>
    /// <param name="associated">Data that goes with it; LUKS has none.</param>
    public static void Derive(
        Argon2Kind kind,
        ReadOnlySpan<byte> passphrase,
        ReadOnlySpan<byte> salt,
        int passes,
        int memoryKiB,
        int lanes,
        Span<byte> key,
        ReadOnlySpan<byte> secret = default,
        ReadOnlySpan<byte> associated = default)
    {
        Span<byte> seed = stackalloc byte[64 + 8];
        var hash = new Blake2b(64);
        hash.Add(lanes);
        hash.Add(key.Length);
        hash.Add(memoryKiB);
        hash.Add(passes);
        hash.Add(Version);
        hash.Add((int)kind);
        AddSized(hash, passphrase);
        AddSized(hash, salt);
        AddSized(hash, secret);
        AddSized(hash, associated);
        hash.Finish(seed);
        var argon = new Argon2(kind, passes, memoryKiB, lanes);
        try
        {
            argon.Start(seed);
            argon.Fill();
            argon.End(key);
        }
        finally
        {
            CryptographicOperations.ZeroMemory(seed);
            Array.Clear(argon._memory);
        }
    }

    private static void AddSized(Blake2b hash, ReadOnlySpan<byte> data)
    {
        hash.Add(data.Length);
        hash.Add(data);
    }

    private Span<ulong> Block(int lane, int column)
        => _memory.AsSpan(((lane * _columns) + column) * BlockWords, BlockWords);

    /// <summary>Fills the first two columns.</summary>
    private void Start(Span<byte> seed)
    {
        Span<byte> bytes = stackalloc byte[BlockBytes];
        for (int lane = 0; lane < _lanes; lane++)
        {
            for (int column = 0; column < 2; column++)
            {
                BinaryPrimitives.WriteInt32LittleEndian(seed[64..], column);
                BinaryPrimitives.WriteInt32LittleEndian(seed[68..], lane);
                Spread(seed, bytes);
                Span<ulong> block = Block(lane, column);
                for (int i = 0; i < BlockWords; i++)
                {
                    block[i] = BinaryPrimitives.ReadUInt64LittleEndian(bytes[(8 * i)..]);
                }
            }
        }
        CryptographicOperations.ZeroMemory(bytes);
    }

    private void Fill()
    {
        for (int pass = 0; pass < _passes; pass++)
        {
            for (int slice = 0; slice < Slices; slice++)
            {
                if (_lanes == 1)
                {
                    FillSegment(pass, slice, 0);
                    continue;
                }
                (int currentPass, int currentSlice) = (pass, slice);
                Parallel.For(0, _lanes, lane => FillSegment(currentPass, currentSlice, lane));
            }
        }
    }

    private void End(Span<byte> key)
    {
        Span<ulong> sum = stackalloc ulong[BlockWords];
        for (int lane = 0; lane < _lanes; lane++)
        {
            ReadOnlySpan<ulong> last = Block(lane, _columns - 1);
            for (int i = 0; i < BlockWords; i++)
            {
                sum[i] ^= last[i];
            }
        }
        Span<byte> bytes = stackalloc byte[BlockBytes];
        for (int i = 0; i < BlockWords; i++)
        {
            BinaryPrimitives.WriteUInt64LittleEndian(bytes[(8 * i)..], sum[i]);
        }
        Spread(bytes, key);
        CryptographicOperations.ZeroMemory(bytes);
        sum.Clear();
    }

    /// <summary>The hash of any length (H' in the standard): digests of digests, of which halves are used.</summary>
    private static void Spread(ReadOnlySpan<byte> data, Span<byte> target)
    {
        var hash = new Blake2b(Math.Min(target.Length, 64));
        hash.Add(target.Length);
        hash.Add(data);
        if (target.Length <= 64)
        {
            hash.Finish(target);
            return;
        }
        Span<byte> digest = stackalloc byte[64];
        hash.Finish(digest);
        digest[..32].CopyTo(target);
        target = target[32..];
        while (target.Length > 64)
        {
            Blake2b.Hash(digest, digest);
            digest[..32].CopyTo(target);
            target = target[32..];
        }
        Blake2b.Hash(digest, target);
        CryptographicOperations.ZeroMemory(digest);
    }
}
