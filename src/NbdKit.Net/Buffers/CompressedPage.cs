using System.Buffers;
using System.IO.Compression;

namespace NbdKit.Buffers;

/// <summary>One page of a <see cref="CompressedArray"/>. Every member is called under the page's lock.</summary>
internal sealed class CompressedPage
{
    public const int Size = 32 << 10;

    private const int Quality = 1;
    private const int Window = 15;

    private byte[]? _plain;
    private byte[]? _packed;

    /// <summary>Guards the page.</summary>
    public Lock Lock { get; } = new();

    /// <summary>Whether it was taken out of the array: what is written to it would be lost.</summary>
    public bool IsGone { get; set; }

    /// <summary>Whether it is in use uncompressed.</summary>
    public bool IsPlain => _plain is not null;

    /// <summary>The bytes it takes now.</summary>
    public int Bytes => (_plain?.Length ?? 0) + (_packed == _plain ? 0 : _packed?.Length ?? 0);

    /// <summary>The content, to be read.</summary>
    public byte[] Read()
    {
        if (_plain is null)
        {
            _plain = _packed is { Length: Size } ? _packed : new byte[Size];
            if (_packed is { Length: < Size } && (!BrotliDecoder.TryDecompress(_packed, _plain, out int count) || count != Size))
            {
                _plain = null;
                throw new NbdException(NbdError.IoError, "a page of the disk cannot be decompressed");
            }
        }
        return _plain;
    }

    /// <summary>The content, to be changed.</summary>
    public byte[] Change()
    {
        byte[] plain = Read();
        _packed = null;
        return plain;
    }

    /// <summary>Compresses it, unless nothing has changed since it was.</summary>
    public void Pack()
    {
        if (_plain is not null && _packed is null)
        {
            byte[] target = ArrayPool<byte>.Shared.Rent(Size);
            try
            {
                // What does not get smaller stays as it is.
                _packed = BrotliEncoder.TryCompress(_plain, target.AsSpan(0, Size - 1), out int count, Quality, Window)
                    ? target[..count]
                    : _plain;
            }
            finally
            {
                ArrayPool<byte>.Shared.Return(target);
            }
        }
        _plain = null;
    }
}
