using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using NbdKit.Filters.Luks;

namespace NbdKit.Tests.Testing;

/// <summary>A LUKS header of version 1 that is quick to open, with its cipher, for tests that need no foreign tool.</summary>
internal sealed class LuksImage
{
    /// <summary>The length of the header; the data follows it.</summary>
    public const int HeaderBytes = 64 << 10;

    public const string Passphrase = "open sesame";

    private const int Stripes = 3;

    /// <param name="mode">The mode of AES.</param>
    /// <param name="keyBytes">The length of its key.</param>
    /// <param name="seed">Determines key and salts.</param>
    /// <param name="slot">The key slot of the passphrase.</param>
    public LuksImage(string mode = "xts-plain64", int keyBytes = 64, int seed = 1, int slot = 0)
    {
        byte[] key = TestData.Random(keyBytes, seed);
        Cipher = new SectorCipher(CipherSpec.Parse("aes-" + mode, keyBytes), new Secret(key), 512, 0);
        Header = TestData.Random(HeaderBytes, seed + 1);
        Header.AsSpan(0, 592).Clear();
        VolumeHeader.Magic.CopyTo(Header);
        Header[7] = 1;
        Encoding.ASCII.GetBytes("aes").CopyTo(Header, 8);
        Encoding.ASCII.GetBytes(mode).CopyTo(Header, 40);
        Encoding.ASCII.GetBytes("sha256").CopyTo(Header, 72);
        Number(104, HeaderBytes / 512);
        Number(108, (uint)keyBytes);
        byte[] salt = TestData.Random(32, seed + 2);
        salt.CopyTo(Header, 132);
        Number(164, 2);
        Rfc2898DeriveBytes.Pbkdf2(key, salt, 2, HashAlgorithmName.SHA256, 20).CopyTo(Header, 112);
        for (int i = 0; i < 8; i++)
        {
            Number(208 + (48 * i), 0x0000DEAD);
        }
        AddSlot(slot, Passphrase, key, mode);
    }

    public byte[] Header { get; }

    public SectorCipher Cipher { get; }

    /// <summary>A disk with this header and some content.</summary>
    public byte[] Disk(byte[] content)
    {
        byte[] disk = [.. Header, .. content];
        Cipher.Encrypt(content, disk.AsSpan(HeaderBytes), 0);
        return disk;
    }

    /// <summary>The content of a disk with this header.</summary>
    public byte[] Content(byte[] disk)
    {
        byte[] content = disk[HeaderBytes..];
        Cipher.Decrypt(content, content, 0);
        return content;
    }

    public void Number(int at, uint value) => BinaryPrimitives.WriteUInt32BigEndian(Header.AsSpan(at), value);

    private void AddSlot(int slot, string passphrase, byte[] key, string mode)
    {
        int at = 208 + (48 * slot);
        byte[] salt = TestData.Random(32, slot + 100);
        Number(at, 0x00AC71F3);
        Number(at + 4, 3);
        salt.CopyTo(Header, at + 8);
        Number(at + 40, (uint)(2 + (4 * slot)));
        Number(at + 44, Stripes);
        HashSpec hash = HashSpec.Parse("sha256");
        byte[] area = new byte[((key.Length * Stripes) + 511) / 512 * 512];
        byte[] sum = new byte[key.Length];
        for (int i = 0; i < Stripes; i++)
        {
            if (i > 0)
            {
                AntiForensic.Diffuse(sum, hash);
            }
            // The last stripe makes the sum the key.
            byte[] stripe = i < Stripes - 1
                ? TestData.Random(key.Length, 50 + i)
                : [.. sum.Zip(key, (a, b) => (byte)(a ^ b))];
            stripe.CopyTo(area, i * key.Length);
            sum = [.. sum.Zip(stripe, (a, b) => (byte)(a ^ b))];
        }
        using var areaKey = new Secret(Rfc2898DeriveBytes.Pbkdf2(passphrase, salt, 3, HashAlgorithmName.SHA256, key.Length));
        using var cipher = new SectorCipher(CipherSpec.Parse("aes-" + mode, key.Length), areaKey, 512, 0);
        cipher.Encrypt(area, Header.AsSpan((2 + (4 * slot)) * 512), 0);
    }
}
