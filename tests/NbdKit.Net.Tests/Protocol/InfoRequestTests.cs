using NbdKit.Protocol;

namespace NbdKit.Tests.Protocol;

public sealed class InfoRequestTests
{
    // The name "disk", then four requests: block size, name, an unknown one, name again.
    private static readonly byte[] Bytes =
        Convert.FromHexString("00000004" + "6469736b" + "0004" + "0003" + "0001" + "4321" + "0001");

    [Test]
    public void Name_and_requests_are_read_each_once_in_their_order_and_unknown_ones_left_out()
    {
        InfoRequest? request = InfoRequest.Read(Bytes, out _);

        Assert.That(request!.Name, Is.EqualTo("disk"));
        Assert.That(request.Types, Is.EqualTo(new[] { InfoType.BlockSize, InfoType.Name }));
    }

    [Test]
    public void The_shortest_payload_has_six_bytes()
    {
        InfoRequest? request = InfoRequest.Read(new byte[6], out _);

        Assert.That(request!.Name, Is.Empty);
        Assert.That(request.Types, Is.Empty);
    }

    [Test]
    public void A_payload_that_is_cut_after_any_byte_is_invalid_and_says_why()
    {
        for (int length = 0; length < Bytes.Length; length++)
        {
            Assert.That(InfoRequest.Read(Bytes.AsSpan(0, length), out string fault), Is.Null, $"{length} bytes");
            Assert.That(fault, Is.Not.Empty);
        }
    }

    [Test]
    public void A_payload_with_bytes_left_over_is_invalid()
    {
        Assert.That(InfoRequest.Read([.. Bytes, 0], out _), Is.Null);
        Assert.That(InfoRequest.Read([.. Bytes, 0, 1], out _), Is.Null);
    }

    [TestCase("00000001" + "0000")]
    [TestCase("ffffffff" + "0000")]
    [TestCase("fffffffa" + "0000")]
    [TestCase("80000000" + "0000")]
    [TestCase("00000000" + "ffff")]
    [TestCase("00000001" + "ff" + "0000")]
    [TestCase("00000001" + "00" + "0000")]
    public void Lengths_and_names_that_break_the_rules_are_invalid(string hex)
        => Assert.That(InfoRequest.Read(Convert.FromHexString(hex), out _), Is.Null);

    [Test]
    public void Random_bytes_never_throw()
    {
        const int Seed = 7;
        var random = new Random(Seed);
        for (int i = 0; i < 20_000; i++)
        {
            byte[] bytes = new byte[random.Next(40)];
            random.NextBytes(bytes);
            if (bytes.Length > 4)
            {
                bytes.AsSpan(0, 3).Clear();
            }
            Assert.That(
                () => InfoRequest.Read(bytes, out _), Throws.Nothing,
                $"seed {Seed}, round {i}: {Convert.ToHexString(bytes)}");
        }
    }
}
