using NbdKit.Filters;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Filters;

public class XorFilterTests
{
    private static XorFilter Create(string xor, string? length = null)
        => (XorFilter)XorFilter.Entry.Create(new NbdParameters("xor", length is null ? [new("xor", xor)] : [new("xor", xor), new("xorlen", length)]));

    [TestCase("0x55", null, "55")]
    [TestCase("0", null, "00")]
    [TestCase("0x1ff", null, "01ff")]
    [TestCase("0x1ff", "4", "000001ff")]
    [TestCase("0xffeeddccbbaa9988", null, "ffeeddccbbaa9988")]
    public void The_key_is_a_number_with_its_first_byte_first(string xor, string? length, string expected)
        => Assert.That(Convert.ToHexStringLower(Create(xor, length).Key.Span), Is.EqualTo(expected));

    [TestCase("0x1ff", "1", "does not fit")]
    [TestCase("0x1", "9", "1 to 8")]
    [TestCase("0x1", "0", "1 to 8")]
    [TestCase("x", null, "xor=x")]
    [TestCase("rand:x", null, "xor=rand:x")]
    [TestCase("-1", null, "xor=-1")]
    public void Other_keys_are_refused_by_name(string xor, string? length, string message)
        => Assert.That(() => Create(xor, length), Throws.ArgumentException.With.Message.Contains(message));

    [Test]
    public void A_random_key_is_the_same_for_the_same_seed()
    {
        Assert.That(Create("rand:7").Key.ToArray(), Is.EqualTo(Create("rand:7").Key.ToArray()).And.Length.EqualTo(8));
        Assert.That(Create("rand:7").Key.ToArray(), Is.Not.EqualTo(Create("rand:8").Key.ToArray()));
        Assert.That(Create("rand", "3").Key.Length, Is.EqualTo(3));
    }

    [Test]
    public async Task The_largest_blocks_are_trimmed_whole()
    {
        var plugin = new ModelPlugin(TestData.Random(1 << 18), ModelPlugin.Everything with { BlockSize = new BlockSize(65_536, 65_536) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new XorFilter { Key = "keys of 8"u8[..8].ToArray() });
        await using NextContext disk = await chain.OpenAsync();
        await disk.TrimAsync(65_536, 131_072, RequestFlags.None, default);
        byte[] read = new byte[131_072];
        await disk.ReadAsync(read, 65_536, default);
        Assert.That(read, Is.All.Zero);
        Assert.That(plugin.Offence, Is.Null);
    }

    [Test]
    public async Task A_trim_of_much_keeps_the_limit_of_the_layer_below()
    {
        var plugin = new ModelPlugin(TestData.Random(1 << 20), ModelPlugin.Everything with { BlockSize = new BlockSize(512, 4096, 8192) });
        await using NbdBackend chain = NbdBackend.Compose(plugin, new XorFilter { Key = "key"u8.ToArray() });
        await using NextContext disk = await chain.OpenAsync();
        await disk.TrimAsync(512, (1 << 20) - 1024, RequestFlags.None, default);
        byte[] all = new byte[1 << 20];
        for (int at = 0; at < all.Length; at += 8192)
        {
            await disk.ReadAsync(all.AsMemory(at, 8192), at, default);
        }
        Assert.That(plugin.Offence, Is.Null);
        Assert.That(all.AsSpan(512, all.Length - 1024).IndexOfAnyExcept((byte)0), Is.EqualTo(-1));
        Assert.That(all.AsSpan(0, 512).ToArray().Zip(plugin.Data).Select(pair => pair.First ^ pair.Second).Take(4), Is.EqualTo("keyk"u8.ToArray().Select(b => (int)b)));
    }
}
