using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

public sealed class DataExpressionTests
{
    [TestCase("", "")]
    [TestCase("0 1 0x0a 017 255", "00010A0FFF")]
    [TestCase("0x0A*2 0x0B", "0A0A0B")]
    [TestCase(" le16:0x102 be16:0x102 le32:1 be32:1 ", "0201010201000000" + "00000001")]
    [TestCase("le64:0xfedcba9876543210 be64:18446744073709551615", "1032547698BADCFEFFFFFFFFFFFFFFFF")]
    [TestCase("\"a\\n\\x7f\\\"\\\\\\'é\"", "610A7F225C27C3A9")]
    [TestCase("base64:aGk= 1", "686901")]
    [TestCase("1 @4 2", "0100000002")]
    [TestCase("1 2 3 @-2 9", "010903")]
    [TestCase("1 @+2 2 @^4 @^4 3", "0100000203")]
    [TestCase("1 @^3 2 @^3", "010000020000")]
    [TestCase("@4 @1 7", "00070000")]
    [TestCase("(1 @3 2) (1 @1 2)", "0100000201" + "02")]
    [TestCase("(1 2)*3 * 2", "010201020102010201020102")]
    [TestCase("7*0 \"\"*5 ()*9", "")]
    [TestCase("\"hello\"[1:3] \"hello\"[:1] \"hello\"[4:] \"hello\"[:] \"hello\"[ 2 : 2 ]", "656C686F68656C6C6F")]
    [TestCase("(1 2)*100[3:6]", "020102")]
    [TestCase("(1 2) -> \\a \\a (3 -> \\a \\a) \\a", "0102030102")]
    [TestCase("1->\\a (\\a \\a) -> \\a \\a*2", "01010101")]
    [TestCase("\\x-y", null)]
    [TestCase("1 # a comment ( \n 2#", "0102")]
    [TestCase("1 2 3 4 5 6 @1 (8 @3) @-1 9", "010800090506")]
    [TestCase("(1 @+6 2) @2 \"abc\" @0 \"xy\"", "787961626300000" + "2")]
    public async Task An_expression_makes_bytes(string text, string? due)
    {
        if (due is null)
        {
            Assert.That(await FaultAsync(text), Does.Contain("\\x-y is not known"));
            return;
        }
        Assert.That(Convert.ToHexString(await BytesAsync(DataExpression.Parse(text))), Is.EqualTo(due));
    }

    [TestCase("1 2 x", 4, "'x' begins nothing")]
    [TestCase("1 256", 2, "256 is not a byte")]
    [TestCase("08", 0, "not octal")]
    [TestCase("0x", 0, "a number is missing")]
    [TestCase("1 )", 2, "')' without '('")]
    [TestCase("1 ( ( 2 )", 2, "'(' without ')'")]
    [TestCase("*3", 0, "*N must follow")]
    [TestCase("@3*3", 2, "*N must follow")]
    [TestCase("@3[1:2]", 2, "[N:M] must follow")]
    [TestCase("1->\\a*3", 5, "*N must follow")]
    [TestCase("1*", 2, "a number is missing")]
    [TestCase("1[2:1]", 1, "ends before it begins")]
    [TestCase("1[2", 3, "':' is missing")]
    [TestCase("1[2:3", 5, "']' is missing")]
    [TestCase("1->a", 3, "'\\' is missing")]
    [TestCase("1-2", 2, "'>' is missing")]
    [TestCase("1->\\ ", 3, "followed by a name")]
    [TestCase("@x", 1, "@ must be followed")]
    [TestCase("@^0", 1, "at least 1")]
    [TestCase("@9223372036854775808", 1, "more than 2^63-1")]
    [TestCase("99999999999999999999", 0, "too large")]
    [TestCase("\"abc", 0, "closing quote")]
    [TestCase("\"ab\\q\"", 3, "an escape is one of")]
    [TestCase("\"\\x1\"", 1, "two hexadecimal digits")]
    [TestCase("le24:1", 0, "a word begins with one of")]
    [TestCase("le16:65536", 0, "does not fit in 16 bits")]
    [TestCase("base64:a", 7, "not base64")]
    [TestCase("< ", 0, "path of a file")]
    [TestCase("1 <(echo)", 2, "scripts are not allowed")]
    [TestCase("$1", 0, "followed by a name")]
    [TestCase("1 $NBDKIT_NET_NOWHERE", 2, "there is no variable $NBDKIT_NET_NOWHERE")]
    [TestCase("1 $loop", 0, "nested deeper than 100")]
    [TestCase("$bad", 2, "at offset 2 of $bad: 'x'")]
    public void What_is_no_expression_is_refused_with_its_place(string text, int offset, string message)
    {
        var options = new DataExpressionOptions
        {
            UsesEnvironment = true,
            Variables = new Dictionary<string, string> { ["loop"] = "$loop $loop", ["bad"] = "1 x" },
        };
        Assert.That(
            () => DataExpression.Parse(text, options),
            Throws.InstanceOf<FormatException>().With.Message.Contains($"at offset {offset}").And.Message.Contains(message));
    }

    [TestCase("1 @-2", 2, "before the start")]
    [TestCase("(1 2)[1:3]", 5, "not inside the 2 bytes")]
    [TestCase("@0x7fffffffffffffff 1", 20, "larger than 2^63-1")]
    [TestCase("(@0x4000000000000000)*2", 21, "larger than 2^63-1")]
    [TestCase("</nowhere/at/all", 0, "cannot read /nowhere/at/all")]
    [TestCase("1 \\a", 2, "\\a is not known")]
    [TestCase("(1->\\a) \\a", 8, "\\a is not known")]
    [TestCase("<(exit 3)", 0, "status 3")]
    [TestCase("<(echo a)[:9]", 0, "ends before")]
    public async Task What_cannot_be_evaluated_fails_at_the_start_with_its_place(string text, int offset, string message)
        => Assert.That(await FaultAsync(text), Does.Contain($"at offset {offset}:").And.Contain(message));

    [Test]
    public void Variables_that_multiply_end_in_time()
    {
        Dictionary<string, string> variables = Enumerable.Range(0, 60).ToDictionary(i => $"v{i}", i => $"$v{i + 1} $v{i + 1} 1");
        variables["v60"] = "1";
        Assert.That(
            () => DataExpression.Parse("$v0", new DataExpressionOptions { Variables = variables }),
            Throws.InstanceOf<FormatException>().With.Message.Contains("more than 1048576 parts"));
    }

    [Test]
    public async Task Holes_may_be_repeated_without_end_and_data_may_not()
    {
        DataExpression holes = DataExpression.Parse("1 (@0x100000 (0)*77)*0x10000000000 @-1 2");
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Expression = holes });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(1 + ((0x100000L + 77) * 0x10000000000)));
        Assert.That(await TestData.ReadAsync(disk, disk.Info.Size - 2, 2), Is.EqualTo(new byte[] { 0, 2 }));
        string doubling = string.Concat(Enumerable.Range(0, 55).Select(i => $"(\\a{i} \\a{i}) -> \\a{i + 1} "));
        foreach (string much in new[] { "(1 2)*0x100000000000", "(1 @4097)*0x10000000000", $"1 -> \\a0 {doubling} \\a55", "</dev/zero" })
        {
            Assert.That(await FaultAsync(much, memoryLimit: 1 << 20), Does.Contain("1048576 bytes"), much);
        }
        // What the size cuts off costs nothing.
        await using NbdBackend cut = NbdBackend.Compose(new DataPlugin
        {
            Expression = DataExpression.Parse("(1 2)*0x100000000000"),
            MemoryLimit = 1 << 20,
            Size = 70_001,
        });
        await using NextContext small = await cut.OpenAsync();
        Assert.That(await TestData.ReadAsync(small, 70_000 - 1, 2), Is.EqualTo(new byte[] { 2, 1 }));
    }

    [Test]
    public async Task Files_scripts_and_variables_are_put_in()
    {
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(200_000, 4);
        string path = folder.Write("file", content);
        var options = new DataExpressionOptions
        {
            AllowsScripts = true,
            Variables = new Dictionary<string, string> { ["x"] = "(1 2) -> \\n \\n" },
        };
        byte[] bytes = await BytesAsync(DataExpression.Parse(
            $"<{path} <{path}[100000:100010] <{path}[199999:] $x <(yes '(x)')[1:3] <(printf abc)*2 </dev/zero[:3]", options));
        Assert.That(bytes, Is.EqualTo(
            content.Concat(content[100_000..100_010]).Append(content[^1]).Concat(new byte[] { 1, 2 })
                .Concat("x)abcabc"u8.ToArray()).Concat(new byte[3]).ToArray()));
    }

    [Test]
    public async Task The_builder_builds_what_the_language_says()
    {
        using var folder = new ScratchDirectory();
        string path = folder.Write("file", "some file"u8.ToArray());
        DataExpression part = new DataBuilder().Text("é").At(5).Byte(7).Skip(-2).Byte(8).Build();
        var builder = new DataBuilder();
        DataExpression built = builder.Bytes(1, 2).LittleEndian((ushort)1).BigEndian((ushort)1).LittleEndian(2u).BigEndian(2u)
            .LittleEndian(3ul).BigEndian(3ul).AlignTo(64).Add(part).Repeat(part, 3).Fill(9, 5).Skip(2).Slice(part, 1, 5)
            .File(path).Slice(new DataBuilder().File(path).Build(), 5).Build();
        builder.Text("too late");
        const string Part = "(\"é\" @5 7 @-2 8)";
        byte[] due = await BytesAsync(DataExpression.Parse(
            $"1 2 le16:1 be16:1 le32:2 be32:2 le64:3 be64:3 @^64 {Part} {Part}*3 9*5 @+2 {Part}[1:5] <{path} <{path}[5:]"));
        Assert.That(await BytesAsync(built), Is.EqualTo(due));
    }

    [Test]
    public void Data_and_an_expression_together_are_refused()
    {
        var plugin = new DataPlugin { Data = new byte[1], Expression = new DataBuilder().Build() };
        Assert.That(
            async () => await plugin.GetReadyAsync(ThreadModel.Parallel, default), Throws.InvalidOperationException);
    }

    /// <summary>What is evaluated inside each other takes the stack of a thread, which nobody can catch the end of.</summary>
    [Test]
    public async Task Nothing_is_nested_so_deep_that_the_stack_ends()
    {
        foreach (string suffix in new[] { "*1", "[:1]" })
        {
            Assert.That(
                () => DataExpression.Parse("1" + string.Concat(Enumerable.Repeat(suffix, 100_000))),
                Throws.InstanceOf<FormatException>().With.Message.Contains("nested deeper"));
        }
        string names = "(0x55*5000 1)->\\a " + string.Concat(Enumerable.Repeat("(\\a 1)->\\a ", 50_000)) + "\\a";
        Assert.That(await FaultAsync(names), Does.Contain("nested too deep"));
    }

    [Test]
    public async Task Rounds_without_bytes_have_an_end_too()
        => Assert.That(await FaultAsync("( (1 @0x10000)[1:0x10000] )*0x10000000000"), Does.Contain("too many rounds"));

    [Test]
    public async Task A_slice_of_a_file_that_begins_beyond_its_end_is_refused()
    {
        using var folder = new ScratchDirectory();
        string path = folder.Write("ten", new byte[10]);
        Assert.That(await FaultAsync($"<{path}[1000:]"), Does.Contain("ends before what is to be cut out of it"));
        Assert.That(await BytesAsync(DataExpression.Parse($"<{path}[10:] 7")), Is.EqualTo(new byte[] { 7 }));
    }

    internal static async Task<byte[]> BytesAsync(DataExpression expression)
    {
        await using NbdBackend chain = NbdBackend.Compose(new DataPlugin { Expression = expression });
        await using NextContext disk = await chain.OpenAsync();
        return disk.Info.Size == 0 ? [] : await TestData.ReadAsync(disk, 0, (int)disk.Info.Size);
    }

    private static async Task<string> FaultAsync(string text, long memoryLimit = 1 << 30)
    {
        var plugin = new DataPlugin
        {
            Expression = DataExpression.Parse(text, new DataExpressionOptions { AllowsScripts = true }),
            MemoryLimit = memoryLimit,
        };
        try
        {
            await plugin.GetReadyAsync(ThreadModel.Parallel, default);
        }
        catch (NbdException e)
        {
            return e.Message;
        }
        return "nothing";
    }
}
