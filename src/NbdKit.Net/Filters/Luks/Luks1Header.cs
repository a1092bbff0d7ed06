using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;

namespace NbdKit.Filters.Luks;

/// <summary>
/// The header of version 1 ("LUKS1 On-Disk Format Specification"). All numbers are big-endian, lengths count bytes, offsets
/// count sectors of 512 bytes.
/// </summary>
/// <remarks>
/// <code>
///   0  6  magic               104  4  offset of the data       208  8 key slots of 48 bytes:
///   6  2  version             108  4  bytes in the key               0   4  state
///   8 32  name of the cipher  112 20  digest of the key              4   4  iterations
///  40 32  its mode            132 32  salt of the digest             8  32  salt
///  72 32  hash                164  4  iterations of the digest      40   4  offset of the stripes
///                             168 40  UUID                          44   4  number of stripes
/// </code>
/// </remarks>
internal static class Luks1Header
{
    public const int Bytes = 592;

    private const int SlotCount = 8;
    private const uint Enabled = 0x00AC71F3;
    private const uint Disabled = 0x0000DEAD;

    public static VolumeHeader Parse(byte[] header, long diskSize)
    {
        string hashName = Text(header, 72);
        HashSpec hash = HashSpec.Parse(hashName);
        uint keyBytes = Number(header, 108);
        if (keyBytes > 64)
        {
            throw Fault.Refused($"a key of {keyBytes} bytes is too long");
        }
        CipherSpec cipher = CipherSpec.Parse($"{Text(header, 8)}-{Text(header, 40)}", (int)keyBytes);
        long offset = Number(header, 104) * 512L;
        if (offset < Bytes || offset > diskSize)
        {
            throw Fault.Refused($"its data begins at {offset}, which is in the header or beyond the end of the disk");
        }
        var digest = new KeyDigest(
            hash, LuksLimits.Iterations(Number(header, 164), "the digest of the key"), header[132..164], header[112..132]);
        var slots = new List<KeySlot>();
        for (int i = 0; i < SlotCount; i++)
        {
            byte[] slot = header[(208 + (48 * i))..(256 + (48 * i))];
            uint state = Number(slot, 0);
            if (state == Enabled)
            {
                string name = $"key slot {i}";
                var found = new KeySlot
                {
                    Name = name,
                    KeyBytes = (int)keyBytes,
                    Derivation = new Pbkdf2Derivation(hash, LuksLimits.Iterations(Number(slot, 4), name), slot[8..40]),
                    Cipher = cipher,
                    AreaKeyBytes = (int)keyBytes,
                    Offset = Number(slot, 40) * 512L,
                    Stripes = LuksLimits.Stripes(Number(slot, 44), name),
                    StripeHash = hash,
                    Digest = digest,
                };
                LuksLimits.RequireInside(found, diskSize);
                slots.Add(found);
            }
            else if (state != Disabled)
            {
                throw Fault.Refused($"key slot {i} is neither enabled nor disabled");
            }
        }
        return new VolumeHeader
        {
            Fingerprint = SHA256.HashData(header),
            Cipher = cipher,
            Offset = offset,
            Slots = slots,
            Unusable = [],
        };
    }

    private static uint Number(byte[] header, int at) => BinaryPrimitives.ReadUInt32BigEndian(header.AsSpan(at));

    private static string Text(byte[] header, int at)
    {
        ReadOnlySpan<byte> field = header.AsSpan(at, 32);
        int end = field.IndexOf((byte)0);
        field = end < 0 ? field : field[..end];
        // It is shown to people if it is not known.
        return field.ContainsAnyExceptInRange((byte)' ', (byte)'~') ? "?" : Encoding.ASCII.GetString(field);
    }
}
