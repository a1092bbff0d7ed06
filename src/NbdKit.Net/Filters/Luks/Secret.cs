using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>Bytes that are never moved, so that no copy of them stays behind, and are wiped in the end.</summary>
internal sealed class Secret : IDisposable
{
    private readonly byte[] _bytes;

    public Secret(int length) => _bytes = GC.AllocateArray<byte>(length, pinned: true);

    public Secret(ReadOnlySpan<byte> bytes)
        : this(bytes.Length)
        => bytes.CopyTo(_bytes);

    public Span<byte> Span => _bytes;

    public Memory<byte> Memory => _bytes;

    public void Dispose() => CryptographicOperations.ZeroMemory(_bytes);
}
