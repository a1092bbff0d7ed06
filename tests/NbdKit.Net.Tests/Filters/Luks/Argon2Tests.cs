using NbdKit.Filters.Luks;

namespace NbdKit.Tests.Filters.Luks;

public sealed class Argon2Tests
{
    // RFC 9106, section 5.
    [TestCase((int)Argon2Kind.D, "512b391b6f1162975371d30919734294f868e3be3984f3c1a13a4db9fabe4acb")]
    [TestCase((int)Argon2Kind.I, "c814d9d1dc7f37aa13f0d77f2494bda1c8de6b016dd388d29952a4c4672b6ce8")]
    [TestCase((int)Argon2Kind.Id, "0d640df58d78766c08c037a34a8b53c9d01ef0452d75b65eb52520e96b01e659")]
    public void It_gives_the_vectors_of_the_standard(int kind, string tag)
    {
        byte[] key = new byte[32];
        Argon2.Derive(
            (Argon2Kind)kind, Repeat(1, 32), Repeat(2, 16), passes: 3, memoryKiB: 32, lanes: 4, key, Repeat(3, 8), Repeat(4, 12));
        Assert.That(Convert.ToHexStringLower(key), Is.EqualTo(tag));
    }

    // Made with OpenSSL: keys of several lengths, one lane, segments of more than 128 blocks.
    [TestCase((int)Argon2Kind.Id, 1, 8, 1, 16, "352850ab82df9b5d1c0cacac51274fd4")]
    [TestCase((int)Argon2Kind.Id, 2, 2000, 3, 100, "1e846560e558baffd6f642af2839f2fec6432713bee6a310e6e40d57e3cbfeb518e0142756daf957ce1f162d8daf32ebdddb1a465285609f17e2dcbefeb31a55d3a6100683ed1e5ba827c5dcef3e732f8b893ce61a4abbca4727ccba8613b7593ac517d9")]
    [TestCase((int)Argon2Kind.I, 3, 4096, 1, 64, "348b4b1895a38f85fb417acc19d5d1d4ff727e5727989a88b08dd7f1e5d1662ee28806c5cf091fd874395c38f78a1b0f562223f2b3f5d51bbb62d3881b917f7f")]
    public void It_gives_what_OpenSSL_gives(int kind, int passes, int memory, int lanes, int length, string expected)
    {
        byte[] key = new byte[length];
        Argon2.Derive((Argon2Kind)kind, "open sesame"u8, "somesalt"u8, passes, memory, lanes, key);
        Assert.That(Convert.ToHexStringLower(key), Is.EqualTo(expected));
    }

    // RFC 7693, appendix A, and one whose last block is full.
    [TestCase(3, "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d17d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923")]
    [TestCase(128, "fc6c71f688f43ea7d60817478808f3cac753e61571865c95adbc2d9122c943a76b92c2cb1047ef3fe7bf6e436ec1d0a99a9e5b216780bf7fed9d7ca91d3a8f3b")]
    [TestCase(129, "55e6e0eb418149a8af92fd9ddc99254781b2f522a131b4f4d984404b71a00e1167b8124d5dcddd4c6977b299392335d6edd303da6d344d74bbef2d38101b232b")]
    public void Blake2b_gives_its_vectors(int length, string expected)
    {
        byte[] data = length == 3 ? [.. "abc"u8] : Repeat(0x61, length);
        byte[] digest = new byte[64];
        Blake2b.Hash(data, digest);
        Assert.That(Convert.ToHexStringLower(digest), Is.EqualTo(expected));
    }

    private static byte[] Repeat(byte value, int count) => [.. Enumerable.Repeat(value, count)];
}
