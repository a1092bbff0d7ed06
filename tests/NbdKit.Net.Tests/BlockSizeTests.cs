namespace NbdKit.Tests;

public sealed class BlockSizeTests
{
    [Test]
    public void The_default_says_nothing()
    {
        BlockSize none = default;
        Assert.That((none.IsKnown, none.Minimum, none.Preferred, none.Maximum), Is.EqualTo((false, 0L, 0L, 0L)));
    }

    [TestCase(1, 512, 512)]
    [TestCase(1, 4096, BlockSize.Unlimited)]
    [TestCase(65_536, 65_536, 65_536)]
    [TestCase(512, 32 << 20, 33L << 20)]
    [TestCase(4096, 4096, 4096 * 3)]
    [TestCase(1, 512, BlockSize.Unlimited - 1)]
    public void Sizes_of_the_protocol_are_taken(long minimum, long preferred, long maximum)
    {
        var size = new BlockSize(minimum, preferred, maximum);
        Assert.That((size.IsKnown, size.Minimum, size.Preferred, size.Maximum), Is.EqualTo((true, minimum, preferred, maximum)));
    }

    [TestCase(0, 512, 512, "minimum")]
    [TestCase(-1, 512, 512, "minimum")]
    [TestCase(3, 512, 512, "minimum")]
    [TestCase(131_072, 131_072, 131_072, "minimum")]
    [TestCase(1, 256, 512, "preferred")]
    [TestCase(1, 1000, 2000, "preferred")]
    [TestCase(1, 64 << 20, 64 << 20, "preferred")]
    [TestCase(4096, 512, 4096, "preferred")]
    [TestCase(1, 4096, 2048, "maximum")]
    [TestCase(512, 512, 1000, "maximum")]
    [TestCase(512, 512, 0, "maximum")]
    [TestCase(1, 512, BlockSize.Unlimited + 1, "maximum")]
    public void Sizes_that_break_a_rule_are_refused_by_name(long minimum, long preferred, long maximum, string parameter)
        => Assert.That(
            () => new BlockSize(minimum, preferred, maximum),
            Throws.InstanceOf<ArgumentOutOfRangeException>().With.Property("ParamName").EqualTo(parameter));
}
