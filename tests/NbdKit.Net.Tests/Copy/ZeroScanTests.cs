using NbdKit.Copy;

namespace NbdKit.Tests.Copy;

public sealed class ZeroScanTests
{
    [Test]
    public void Runs_are_of_blocks_counted_from_the_begin_of_the_disk()
    {
        byte[] data = new byte[2048];
        data[700] = 1;
        // Blocks of 512 at offset 300: 212, 512 (with the byte), 512, 512, 300.
        Assert.Multiple(() =>
        {
            Assert.That(ZeroScan.Run(data, 300, 512, out bool first), Is.EqualTo(212));
            Assert.That(first, Is.True);
            Assert.That(ZeroScan.Run(data.AsSpan(212), 512, 512, out bool second), Is.EqualTo(512));
            Assert.That(second, Is.False);
            Assert.That(ZeroScan.Run(data.AsSpan(724), 1024, 512, out bool third), Is.EqualTo(1324));
            Assert.That(third, Is.True);
        });
    }

    [Test]
    public void It_agrees_with_a_plain_model()
    {
        var random = new Random(5);
        for (int round = 0; round < 500; round++)
        {
            int block = 1 << random.Next(9, 13);
            long offset = random.Next(10_000);
            byte[] data = SparseDataOf(random);
            int at = 0;
            while (at < data.Length)
            {
                int run = ZeroScan.Run(data.AsSpan(at), offset + at, block, out bool isZero);
                Assert.That(run, Is.GreaterThan(0));
                for (int i = at; i < at + run;)
                {
                    int end = (int)Math.Min(data.Length, ((offset + i) / block * block) + block - offset);
                    Assert.That(data[i..end].All(b => b == 0), Is.EqualTo(isZero), $"round {round}, seed 5, byte {i}");
                    i = end;
                }
                at += run;
            }
        }
    }

    private static byte[] SparseDataOf(Random random)
        => Testing.SparseData.Random(1 + random.Next(20_000), random, 6000);
}
