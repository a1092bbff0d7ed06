using System.Security.Cryptography;

namespace NbdKit.Filters.Luks;

/// <summary>AES of many independent blocks at once. For one thread at a time; it keeps the expanded key, and no state else.</summary>
internal sealed class AesBlocks : IDisposable
{
    private readonly ICryptoTransform _encryptor;
    private readonly ICryptoTransform _decryptor;

    public AesBlocks(ReadOnlySpan<byte> key)
    {
        using Aes aes = Aes.Create();
        aes.Mode = CipherMode.ECB;
        aes.Padding = PaddingMode.None;
        aes.SetKey(key);
        _encryptor = aes.CreateEncryptor();
        _decryptor = aes.CreateDecryptor();
    }

    /// <summary>Encrypts the first blocks of an array in place.</summary>
    public void Encrypt(byte[] blocks, int length) => _encryptor.TransformBlock(blocks, 0, length, blocks, 0);

    /// <summary>Decrypts the first blocks of an array in place.</summary>
    public void Decrypt(byte[] blocks, int length) => _decryptor.TransformBlock(blocks, 0, length, blocks, 0);

    public void Dispose()
    {
        _encryptor.Dispose();
        _decryptor.Dispose();
    }
}
