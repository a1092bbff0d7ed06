using NbdKit.Protocol;

namespace NbdKit.Tests.Protocol;

public sealed class MetaContextRequestTests
{
    // The name "disk", then two queries: "base:", "".
    private static readonly byte[] Bytes =
        Convert.FromHexString("00000004" + "6469736b" + "00000002" + "00000005" + "626173653a" + "00000000");

    [Test]
    public void Name_and_queries_are_read_in_their_order()
    {
        MetaContextRequest? request = MetaContextRequest.Read(Bytes, 2, out _, out bool tooMany);

        Assert.That(request!.Name, Is.EqualTo("disk"));
        Assert.That(request.Queries, Is.EqualTo(new[] { "base:", "" }));
        Assert.That(tooMany, Is.False);
    }

    [Test]
    public void More_queries_than_allowed_are_told_from_other_faults()
    {
        Assert.That(MetaContextRequest.Read(Bytes, 1, out string fault, out bool tooMany), Is.Null);
        Assert.That(tooMany);
        Assert.That(fault, Is.Not.Empty);
    }

    [Test]
    public void A_payload_that_is_cut_after_any_byte_is_invalid_and_says_why()
    {
        for (int length = 0; length < Bytes.Length; length++)
        {
            Assert.That(
                MetaContextRequest.Read(Bytes.AsSpan(0, length), 100, out string fault, out bool tooMany),
                Is.Null,
                $"{length} bytes");
            Assert.That(fault, Is.Not.Empty);
            Assert.That(tooMany, Is.False);
        }
    }

    [Test]
    public void A_payload_with_bytes_left_over_is_invalid()
        => Assert.That(MetaContextRequest.Read([.. Bytes, 0], 100, out _, out _), Is.Null);

    [TestCase("00000001" + "00000000")]
    [TestCase("ffffffff" + "00000000")]
    [TestCase("00000000" + "ffffffff")]
    [TestCase("00000000" + "80000000" + "00000000")]
    [TestCase("00000000" + "00000001" + "ffffffff")]
    [TestCase("00000000" + "00000001" + "00000001" + "ff")]
    [TestCase("00000000" + "00000001" + "00000001" + "00")]
    [TestCase("00000001" + "ff" + "00000000")]
    public void Lengths_and_strings_that_break_the_rules_are_invalid_and_not_too_many(string hex)
    {
        Assert.That(MetaContextRequest.Read(Convert.FromHexString(hex), 1024, out _, out bool tooMany), Is.Null);
        Assert.That(tooMany, Is.False);
    }

    [Test]
    public void Random_bytes_never_throw()
    {
        const int Seed = 9;
        var random = new Random(Seed);
        for (int i = 0; i < 20_000; i++)
        {
            byte[] bytes = new byte[random.Next(40)];
            random.NextBytes(bytes);
            for (int at = 0; at + 3 < bytes.Length; at += 5)
            {
                bytes.AsSpan(at, 3).Clear();
            }
            Assert.That(
                () => MetaContextRequest.Read(bytes, 3, out _, out _), Throws.Nothing,
                $"seed {Seed}, round {i}: {Convert.ToHexString(bytes)}");
        }
    }
}
