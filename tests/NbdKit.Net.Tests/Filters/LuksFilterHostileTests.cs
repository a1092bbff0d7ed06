using System.Buffers.Binary;
using System.Security.Cryptography;
using System.Text;
using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

/// <summary>Headers that are wrong: refused with a message that says what is wrong, at once and with bounded memory.</summary>
public sealed class LuksFilterHostileTests
{
    private static LuksFilter Filter(long most = 100_000)
        => new() { Passphrase = Encoding.UTF8.GetBytes(LuksImage.Passphrase), MaxIterations = most };

    private static async Task<NbdException> RefusalAsync(byte[] disk, LuksFilter? filter = null)
    {
        var plugin = new TestPlugin(new TestExport { Data = disk });
        await using NbdBackend chain = NbdBackend.Compose(plugin, filter ?? Filter());
        NbdException e = TestData.Failure(async () => await chain.OpenAsync());
        Assert.That((plugin.Opened, plugin.Closed), Is.EqualTo((1, 1)), "nothing stays open");
        return e;
    }

    [TestCase(104, 0u, "its data begins at 0, which is in the header")]
    [TestCase(104, 1u, "its data begins at 512, which is in the header")]
    [TestCase(104, 0xFFFFFFFFu, "its data begins at 2199023255040, which is in the header or beyond the end of the disk")]
    [TestCase(108, 0u, "a key of 0 bytes is none of 'aes-xts-plain64'")]
    [TestCase(108, 63u, "a key of 63 bytes is none of 'aes-xts-plain64'")]
    [TestCase(108, 0xFFFFFFFFu, "a key of 4294967295 bytes is too long")]
    [TestCase(164, 0u, "the digest of the key has 0 iterations")]
    [TestCase(164, 0x80000000u, "the digest of the key has 2147483648 iterations")]
    [TestCase(208, 0u, "key slot 0 is neither enabled nor disabled")]
    [TestCase(212, 0u, "key slot 0 has 0 iterations")]
    [TestCase(212, 0xFFFFFFFFu, "key slot 0 has 4294967295 iterations")]
    [TestCase(248, 0xFFFFFFFFu, "key slot 0 is beyond the end of the disk")]
    [TestCase(252, 0u, "key slot 0 has 0 stripes")]
    [TestCase(252, 0xFFFFFFFFu, "key slot 0 has 4294967295 stripes, which is not from 1 to 10000")]
    [TestCase(8, 0x73657270u, "the cipher 'serp-xts-plain64' is not supported")]
    [TestCase(8, 0x1B5B326Au, "the cipher '?-xts-plain64' is not supported")]
    [TestCase(72, 0x72697065u, "the hash 'ripe56' is not supported")]
    [TestCase(4, 0xBABE0003u, "version 3 of LUKS is not known")]
    [TestCase(0, 0u, "it does not begin with a LUKS header")]
    public async Task A_header_of_version_1_that_is_wrong_is_refused(int at, uint value, string message)
    {
        var image = new LuksImage();
        image.Number(at, value);
        NbdException e = await RefusalAsync(image.Disk(new byte[4096]));
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.StartWith("the disk cannot be decrypted: " + message));
    }

    [Test]
    public async Task A_disk_that_is_too_short_is_refused([Values(0, 1, 591)] int length)
        => Assert.That((await RefusalAsync(new LuksImage().Header[..length])).Message, Does.Contain("does not begin with a LUKS header"));

    [Test]
    public async Task A_key_slot_that_costs_too_much_is_not_tried([Values(212, 164)] int at)
    {
        var image = new LuksImage();
        image.Number(at, int.MaxValue);
        NbdException e = await RefusalAsync(image.Disk(new byte[4096]));
        Assert.That(e.Message, Does.EndWith("that could be tried: key slot 0 would take more iterations than are allowed"));
    }

    [Test]
    public async Task Key_slots_together_cost_no_more_than_is_allowed()
    {
        var image = new LuksImage(slot: 1);
        // One that cannot be opened comes first and takes most of what is allowed.
        image.Header.AsSpan(256, 48).CopyTo(image.Header.AsSpan(208));
        image.Number(212, 90_000 / 2);
        NbdException e = await RefusalAsync(image.Disk(new byte[4096]), Filter(90_009));
        Assert.That(e.Message, Does.EndWith("key slot 1 would take more iterations than are allowed"));
        await using NbdBackend chain = NbdBackend.Compose(new TestPlugin(new TestExport { Data = image.Disk(new byte[4096]) }), Filter(90_010));
        await using NextContext disk = await chain.OpenAsync();
    }

    private const string Slot =
        """{"type":"luks2","key_size":64,"area":{"type":"raw","offset":"32768","size":"258048","encryption":"aes-xts-plain64","key_size":64},"kdf":{"type":"pbkdf2","hash":"sha256","iterations":1000,"salt":"AAAA"},"af":{"type":"luks1","stripes":4000,"hash":"sha256"}}""";

    private const string Digest =
        """{"type":"pbkdf2","keyslots":["0"],"segments":["0"],"salt":"AAAA","digest":"AAAA","iterations":1000,"hash":"sha256"}""";

    private const string Segment =
        """{"type":"crypt","offset":"524288","size":"dynamic","iv_tweak":"0","encryption":"aes-xts-plain64","sector_size":512}""";

    private static string Json(string slot = Slot, string digest = Digest, string segments = $$"""{"0":{{Segment}}}""", string config = "{}")
        => $$"""{"keyslots":{"0":{{slot}}},"digests":{"0":{{digest}}},"segments":{{segments}},"config":{{config}}}""";

    private static string Argon(long passes, long memory, long lanes) => Slot.Replace(
        """{"type":"pbkdf2","hash":"sha256","iterations":1000,""",
        $$"""{"type":"argon2id","time":{{passes}},"memory":{{memory}},"cpus":{{lanes}},""");

    private static readonly TestCaseData[] WrongTexts =
    [
        new(Json(), "the passphrase opens no key slot"),
        new("", "its header is damaged"),
        new("[]", "its header is damaged"),
        new("{}", "its header is damaged"),
        new(new string('[', 10_000), "its header is damaged"),
        new(Json(digest: Digest.Replace("\"0\"]", "\"1\"]")), "its header is damaged"),
        new(Json(digest: Digest.Replace("\"digest\":\"AAAA\"", "\"digest\":\"!\"")), "its header is damaged"),
        new(Json(digest: Digest.Replace("1000", "1e99")), "its header is damaged"),
        new(Json(digest: Digest.Replace("\"digest\":\"AAAA\"", "\"digest\":\"\"")), "the digest of its key has 0 bytes"),
        new(Json(digest: Digest.Replace("1000", "0")), "the digest of the key has 0 iterations"),
        new(Json(Slot.Replace("pbkdf2", "scrypt")), "no key slot that is supported: key slot 0: the disk cannot be decrypted: its key derivation scrypt is not supported"),
        new(Json(Slot.Replace("pbkdf2", "argon2id")), "its header is damaged"),
        new(Json(Argon(4, 1 << 20, 0)), "key slot 0 has argon2 with 4 passes, 1048576 KiB and 0 lanes"),
        new(Json(Argon(4, 31, 4)), "key slot 0 has argon2 with 4 passes, 31 KiB and 4 lanes"),
        new(Json(Argon(0, 1 << 20, 4)), "key slot 0 has argon2 with 0 passes"),
        new(Json(Argon(4, 1L << 40, 4)), "key slot 0 has argon2 with 4 passes, 1099511627776 KiB and 4 lanes"),
        new(Json(Argon(1, (1 << 20) + 4, 4)), "key slot 0 would take more"),
        new(Json(Argon(1_000_000, 32, 4)), "key slot 0 would take more iterations than are allowed"),
        new(Json(Slot.Replace("4000", "2000000000")), "no key slot that is supported: key slot 0: the disk cannot be decrypted: key slot 0 has 2000000000 stripes"),
        new(Json(Slot.Replace("32768", "9223372036854775807")), "key slot 0 is beyond the end of the disk"),
        new(Json(Slot.Replace("\"key_size\":64,\"area\"", "\"key_size\":100000,\"area\"")), "a key of 100000 bytes is too long"),
        new(Json(Slot.Replace("aes-xts", "serpent-xts")), "the cipher 'serpent-xts-plain64' is not supported"),
        new(Json(segments: "{}"), "it is not one encrypted segment"),
        new(Json(segments: $$"""{"0":{{Segment}},"1":{{Segment}}}"""), "it is not one encrypted segment"),
        new(Json(segments: $$"""{"0":{{Segment.Replace("crypt", "linear")}}}"""), "it is not one encrypted segment"),
        new(Json(segments: $$"""{"0":{{Segment.Replace(":512", ":513")}}}"""), "it has sectors of 513 bytes"),
        new(Json(segments: $$"""{"0":{{Segment.Replace("524288", "-512")}}}"""), "its offset is not a number"),
        new(Json(segments: $$"""{"0":{{Segment.Replace("524288", "524289")}}}"""), "its data at 524289 is in the header"),
        new(Json(segments: $$"""{"0":{{Segment.Replace("dynamic", "9223372036854775807")}}}"""), "goes beyond the end of the disk"),
        new(Json(segments: $$"""{"0":{{Segment.Replace("}", ",\"integrity\":{}}")}}}"""), "data with checksums of its own (dm-integrity) is not supported"),
        new(Json(config: """{"requirements":{"mandatory":["online-reencrypt-v2"]}}"""), "it requires 'online-reencrypt-v2', which is not supported"),
        new(Json(segments: "{" + string.Join(",", Enumerable.Range(0, 33).Select(i => $"\"{i}\":{{}}")) + "}"), "its header has too many segments"),
    ];

    [TestCaseSource(nameof(WrongTexts))]
    public async Task A_header_of_version_2_that_is_wrong_is_refused(string json, string message)
        => Assert.That((await RefusalAsync(Version2(json))).Message, Does.Contain(message));

    [Test]
    public async Task The_second_copy_of_the_header_is_used_if_the_first_is_damaged()
    {
        byte[] disk = Version2(Json(config: """{"requirements":{"mandatory":["first"]}}"""));
        byte[] second = Version2(Json(config: """{"requirements":{"mandatory":["second"]}}"""), 16 << 10);
        second.AsSpan(16 << 10, 16 << 10).CopyTo(disk.AsSpan(16 << 10));
        Assert.That((await RefusalAsync(disk)).Message, Does.Contain("requires 'first'"));
        disk[4100] ^= 1;
        Assert.That((await RefusalAsync(disk)).Message, Does.Contain("requires 'second'"));
        disk.AsSpan(0, 6).Clear();
        Assert.That((await RefusalAsync(disk)).Message, Does.Contain("requires 'second'"), "no magic either");
        disk[(16 << 10) + 4100] ^= 1;
        Assert.That((await RefusalAsync(disk)).Message, Does.Contain("does not begin with a LUKS header"));
        disk[0] = 0x4C;
        "UKS"u8.CopyTo(disk.AsSpan(1));
        disk[4] = 0xBA;
        disk[5] = 0xBE;
        Assert.That((await RefusalAsync(disk)).Message, Does.Contain("both copies of its header are damaged"));
    }

    [TestCase(8, 0x0000_0000_0000_2000ul)]
    [TestCase(8, 0x0000_0000_0000_5000ul)]
    [TestCase(8, 0x0000_0000_0080_0000ul)]
    [TestCase(8, 0xFFFF_FFFF_FFFF_FFFFul)]
    [TestCase(256, 512ul)]
    public async Task A_length_or_place_of_the_header_that_cannot_be_is_damage(int at, ulong value)
    {
        byte[] disk = Version2(Json());
        BinaryPrimitives.WriteUInt64BigEndian(disk.AsSpan(at), value);
        Assert.That((await RefusalAsync(disk)).Message, Does.Contain("both copies of its header are damaged"));
    }

    /// <summary>A disk of 1 MiB whose only header of version 2, of 16 KiB, has this text.</summary>
    private static byte[] Version2(string json, int offset = 0)
    {
        byte[] disk = new byte[1 << 20];
        Span<byte> copy = disk.AsSpan(offset, 16 << 10);
        (offset == 0 ? NbdKit.Filters.Luks.VolumeHeader.Magic : [0x53, 0x4B, 0x55, 0x4C, 0xBA, 0xBE]).CopyTo(copy);
        copy[7] = 2;
        BinaryPrimitives.WriteUInt64BigEndian(copy[8..], 16 << 10);
        "sha256"u8.CopyTo(copy[72..]);
        BinaryPrimitives.WriteUInt64BigEndian(copy[256..], (ulong)offset);
        Encoding.UTF8.GetBytes(json).AsSpan(0, Math.Min(json.Length, copy.Length - 4096)).CopyTo(copy[4096..]);
        SHA256.HashData(copy).CopyTo(copy[448..]);
        return disk;
    }
}
