using NbdKit.Filters.Luks;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters.Luks;

public sealed class SectorCipherTests
{
    // IEEE Std 1619-2007, annex B: number of the vector, key, number of the data unit, plaintext, ciphertext.
    private static readonly TestCaseData[] XtsVectors =
    [
        Vector(1, new string('0', 64), 0, new string('0', 64), "917cf69ebd68b2ec9b9fe9a3eadda692cd43d2f59598ed858c02c2652fbf922e"),
        Vector(
            2, Repeat("11", 16) + Repeat("22", 16), 0x3333333333, Repeat("44", 32),
            "c454185e6a16936e39334038acef838bfb186fff7480adc4289382ecd6d394f0"),
        Vector(
            3, "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0" + Repeat("22", 16), 0x3333333333, Repeat("44", 32),
            "af85336b597afc1a900b2eb21ec949d292df4c047e0b21532186a5971a227a89"),
        Vector(
            4, "2718281828459045235360287471352631415926535897932384626433832795", 0, Counting(512),
            "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89cc78cf7f5e543445f8333d8fa7f560000"
            + "05279fa5d8b5e4ad40e736ddb4d35412328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
            + "93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad02655ea92dc4c4e41a8952c651d33174be51"
            + "a10c421110e6d81588ede82103a252d8a750e8768defffed9122810aaeb99f9172af82b604dc4b8e51bcb08235a6f434"
            + "1332e4ca60482a4ba1a03b3e65008fc5da76b70bf1690db4eae29c5f1badd03c5ccf2a55d705ddcd86d449511ceb7ec3"
            + "0bf12b1fa35b913f9f747a8afd1b130e94bff94effd01a91735ca1726acd0b197c4e5b03393697e126826fb6bbde8ecc"
            + "1e08298516e2c9ed03ff3c1b7860f6de76d4cecd94c8119855ef5297ca67e9f3e7ff72b1e99785ca0a7e7720c5b36dc6"
            + "d72cac9574c8cbbc2f801e23e56fd344b07f22154beba0f08ce8891e643ed995c94d9a69c9f1b5f499027a78572aeebd"
            + "74d20cc39881c213ee770b1010e4bea718846977ae119f7a023ab58cca0ad752afe656bb3c17256a9f6e9bf19fdd5a38"
            + "fc82bbe872c5539edb609ef4f79c203ebb140f2e583cb2ad15b4aa5b655016a8449277dbd477ef2c8d6c017db738b18d"
            + "eb4a427d1923ce3ff262735779a418f20a282df920147beabe421ee5319d0568"),
        Vector(
            10,
            "27182818284590452353602874713526624977572470936999595749669676273141592653589793238462643383279502884197169399375105820974944592",
            0xff, Counting(512),
            "1c3b3a102f770386e4836c99e370cf9bea00803f5e482357a4ae12d414a3e63b5d31e276f8fe4a8d66b317f9ac683f44"
            + "680a86ac35adfc3345befecb4bb188fd5776926c49a3095eb108fd1098baec70aaa66999a72a82f27d848b21d4a741b0"
            + "c5cd4d5fff9dac89aeba122961d03a757123e9870f8acf1000020887891429ca2a3e7a7d7df7b10355165c8b9a6d0a7d"
            + "e8b062c4500dc4cd120c0f7418dae3d0b5781c34803fa75421c790dfe1de1834f280d7667b327f6c8cd7557e12ac3a0f"
            + "93ec05c52e0493ef31a12d3d9260f79a289d6a379bc70c50841473d1a8cc81ec583e9645e07b8d9670655ba5bbcfecc6"
            + "dc3966380ad8fecb17b6ba02469a020a84e18e8f84252070c13e9f1f289be54fbc481457778f616015e1327a02b140f1"
            + "505eb309326d68378f8374595c849d84f4c333ec4423885143cb47bd71c5edae9be69a2ffeceb1bec9de244fbe15992b"
            + "11b77c040f12bd8f6a975a44a0f90c29a9abc3d4d893927284c58754cce294529f8614dcd2aba991925fedc4ae74ffac"
            + "6e333b93eb4aff0479da9a410e4450e0dd7ae4c6e2910900575da401fc07059f645e8b7e9bfdef33943054ff84011493"
            + "c27b3429eaedb4ed5376441a77ed43851ad77f16f541dfd269d50d6a5f14fb0aab1cbb4c1550be97f7ab4066193c4caa"
            + "773dad38014bd2092fa755c824bb5e54c4f36ffda9fcea70b9c6e693e148c151"),
    ];

    private static TestCaseData Vector(int number, string key, long sector, string plain, string encrypted)
        => new TestCaseData(key, sector, plain, encrypted).SetName($"XTS gives vector {number} of IEEE 1619");

    private static string Repeat(string hex, int count) => string.Concat(Enumerable.Repeat(hex, count));

    private static string Counting(int length) => Convert.ToHexString([.. Enumerable.Range(0, length).Select(i => (byte)i)]);

    [TestCaseSource(nameof(XtsVectors))]
    public void Xts_gives_the_vectors_of_the_standard(string key, long sector, string plain, string encrypted)
    {
        byte[] source = Convert.FromHexString(plain);
        byte[] keyBytes = Convert.FromHexString(key);
        using var worker = CipherWorker.Create(CipherSpec.Parse("aes-xts-plain64", keyBytes.Length), keyBytes, source.Length);
        byte[] target = new byte[source.Length];
        worker.Encrypt(source, target, (ulong)sector);
        Assert.That(Convert.ToHexStringLower(target), Is.EqualTo(encrypted));
        worker.Decrypt(target, target, (ulong)sector);
        Assert.That(target, Is.EqualTo(source), "in place");
    }

    [TestCase("cbc-plain", 16, 512)]
    [TestCase("cbc-plain64", 24, 2048)]
    [TestCase("cbc-plain64be", 32, 4096)]
    [TestCase("cbc-essiv:sha256", 32, 512)]
    [TestCase("cbc-essiv:md5", 32, 1024)]
    public void Cbc_is_that_of_the_framework(string mode, int keyBytes, int sectorSize)
    {
        byte[] key = TestData.Random(keyBytes, 3);
        CipherSpec spec = CipherSpec.Parse("aes-" + mode, keyBytes);
        byte[] plain = TestData.Random(40 * sectorSize, 4);
        const long First = 0x1_2345_6789;
        using var secret = new Secret(key);
        using var cipher = new SectorCipher(spec, secret, sectorSize, First);
        byte[] encrypted = new byte[plain.Length];
        cipher.Encrypt(plain, encrypted, 0);

        using var framework = System.Security.Cryptography.Aes.Create();
        framework.Key = key;
        for (int at = 0; at < plain.Length; at += sectorSize)
        {
            byte[] iv = new byte[16];
            ulong number = First + (ulong)(at / 512);
            switch (spec.Iv)
            {
                case IvKind.Plain:
                    BitConverter.TryWriteBytes(iv, (uint)number);
                    break;
                case IvKind.Plain64BigEndian:
                    BitConverter.TryWriteBytes(iv, number);
                    Array.Reverse(iv);
                    break;
                default:
                    BitConverter.TryWriteBytes(iv, number);
                    break;
            }
            if (spec.Iv == IvKind.Essiv)
            {
                using var essiv = System.Security.Cryptography.Aes.Create();
                essiv.Key = System.Security.Cryptography.CryptographicOperations.HashData(spec.IvHash.Algorithm, key);
                iv = essiv.EncryptEcb(iv, System.Security.Cryptography.PaddingMode.None);
            }
            byte[] expected = framework.EncryptCbc(plain.AsSpan(at, sectorSize), iv, System.Security.Cryptography.PaddingMode.None);
            Assert.That(encrypted.AsSpan(at, sectorSize).SequenceEqual(expected), $"sector at {at}");
        }
        cipher.Decrypt(encrypted, encrypted, 0);
        Assert.That(encrypted.AsSpan().SequenceEqual(plain), "in place");
    }

    [Test]
    public void Several_threads_use_one_cipher_at_once()
    {
        using var key = new Secret(TestData.Random(64, 1));
        using var cipher = new SectorCipher(CipherSpec.Parse("aes-xts-plain64", 64), key, 512, 0);
        byte[] plain = TestData.Random(40_960, 2);
        byte[] encrypted = new byte[plain.Length];
        cipher.Encrypt(plain, encrypted, 512);
        Parallel.For(0, 200, i =>
        {
            byte[] target = new byte[plain.Length];
            int from = i % 30 * 512;
            cipher.Decrypt(encrypted.AsSpan(from), target, 512 + from);
            Assert.That(target.AsSpan(0, plain.Length - from).SequenceEqual(plain.AsSpan(from)));
        });
    }

    [TestCase("aes-xts-plain64", 16, "a key of 16 bytes is none of 'aes-xts-plain64'")]
    [TestCase("aes-cbc-plain", 64, "a key of 64 bytes is none of 'aes-cbc-plain'")]
    [TestCase("serpent-xts-plain64", 64, "the cipher 'serpent-xts-plain64' is not supported (AES with XTS or CBC is)")]
    [TestCase("aes-ecb", 32, "the cipher 'aes-ecb' is not supported")]
    [TestCase("aes-lrw-benbi", 32, "the cipher 'aes-lrw-benbi' is not supported")]
    [TestCase("aes-cbc-essiv:sha1", 32, "the initialization vectors of 'aes-cbc-essiv:sha1' are not supported")]
    [TestCase("aes-cbc-null", 32, "the initialization vectors of 'aes-cbc-null' are not supported")]
    public void What_is_not_supported_is_named(string cipher, int keyBytes, string message)
    {
        NbdException e = Assert.Throws<NbdException>(() => CipherSpec.Parse(cipher, keyBytes))!;
        Assert.That(e.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(e.Message, Does.StartWith("the disk cannot be decrypted: " + message));
    }
}
