using System.Security.Cryptography;

namespace NbdKit.Copy;

/// <summary>The SHA-256 of the pieces of a copy, which must come in order.</summary>
internal sealed class OrderedHash : IDisposable
{
    private static readonly byte[] Zeroes = new byte[64 << 10];

    private readonly IncrementalHash _hash = IncrementalHash.CreateHash(HashAlgorithmName.SHA256);

    public void Append(ReadOnlySpan<byte> data) => _hash.AppendData(data);

    public void AppendZeroes(long length, CancellationToken cancellationToken)
    {
        while (length > 0)
        {
            cancellationToken.ThrowIfCancellationRequested();
            int count = (int)Math.Min(length, Zeroes.Length);
            _hash.AppendData(Zeroes.AsSpan(0, count));
            length -= count;
        }
    }

    /// <summary>The hash of everything; there can be nothing more then.</summary>
    public byte[] Finish() => _hash.GetHashAndReset();

    public void Dispose() => _hash.Dispose();
}
