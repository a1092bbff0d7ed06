using System.Text;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>The language of the data plugin, against nbdkit's own.</summary>
public sealed class DataExpressionTests
{
    private const int Count = 150;

    [Test]
    public async Task Random_expressions_make_the_bytes_that_nbdkit_makes_of_them()
    {
        Peer.Require("nbdkit", "nbdcopy");
        int seed = int.TryParse(Environment.GetEnvironmentVariable("NBDKIT_DATA_SEED"), out int given) ? given : 17;
        var random = new Random(seed);
        using var folder = new ScratchDirectory();
        string file = folder.Write("file", TestData.Random(3000, 2));
        var all = new StringBuilder();
        for (int i = 0; i < Count; i++)
        {
            all.Append("( ").Append(List(random, 4, file, names: 0)).Append(" ) @^512\n");
        }
        byte[] ours = await Plugins.DataExpressionTests.BytesAsync(NbdKit.Plugins.DataExpression.Parse(
            all.ToString(), new() { AllowsScripts = true, Variables = new Dictionary<string, string> { ["v"] = "1 @3 \"v\"" } }));
        await Peer.OutputAsync("nbdkit", "-U", "-", "data", all.ToString(), "v=1 @3 \"v\"", "--run", $"nbdcopy \"$uri\" '{folder["theirs"]}'");
        byte[] theirs = await File.ReadAllBytesAsync(folder["theirs"]);
        int at = ours.AsSpan().CommonPrefixLength(theirs);
        Assert.That((at, ours.Length), Is.EqualTo((theirs.Length, theirs.Length)), $"seed {seed}:\n{all}");
    }

    [TestCase("'\"boot\" @0x1fe 0x55 0xaa (@511 1 2)*3 $v $v*2' v='1 @2' size=1M", 0)]
    [TestCase("'<(i=0; while test $i -lt 5; do printf %d $i; i=$((i+1)); done)*4' scripts=true", 0)]
    [TestCase("'<(echo)'", 1)]
    [TestCase("'1 2 ( 3'", 1)]
    public async Task The_command_takes_what_nbdkit_takes(string line, int status)
    {
        Peer.Require("nbdkit", "nbdcopy");
        using var folder = new ScratchDirectory();
        string tool = Path.Combine(AppContext.BaseDirectory, "nbdkit-net.dll");
        PeerResult result = await Peer.RunAsync(
            "sh", "-c", $"exec dotnet exec '{tool}' -U - data {line} --run 'nbdcopy \"$uri\" \"{folder["ours"]}\"'");
        result.Expect(status);
        if (status == 0)
        {
            string plain = line.Replace(" scripts=true", "", StringComparison.Ordinal);
            (await Peer.RunAsync("sh", "-c", $"exec nbdkit -U - data {plain} --run 'nbdcopy \"$uri\" \"{folder["theirs"]}\"'")).Expect(0);
            await SameFile.CheckAsync(folder["ours"], folder["theirs"]);
        }
        else
        {
            Assert.That(result.Errors, Does.Contain("data: at offset"));
        }
    }

    /// <summary>A list of parts; the names \n1 to \nN are known in it.</summary>
    private static string List(Random random, int depth, string file, int names)
    {
        var text = new StringBuilder();
        for (int parts = random.Next(1, 6); parts > 0; parts--)
        {
            switch (random.Next(12))
            {
                case 0:
                    text.Append($"@{random.Next(60)} ");
                    break;
                case 1:
                    text.Append($"@+{random.Next(20)} ");
                    break;
                case 2:
                    text.Append($"@^{1 << random.Next(6)} ");
                    break;
                case 3:
                    text.Append($"{random.Next(256)} @-1 ");
                    break;
                case 4 when names < 3:
                    names++;
                    text.Append($"( {List(random, depth - 1, file, names - 1)}) -> \\n{names} ");
                    break;
                default:
                    text.Append(Data(random, depth, file, names)).Append(' ');
                    break;
            }
        }
        return text.ToString();
    }

    private static string Data(Random random, int depth, string file, int names)
    {
        string one = random.Next(depth > 0 ? 10 : 5) switch
        {
            0 => $"{random.Next(256)}",
            1 => $"0x{random.Next(256):x}",
            2 => $"\"{(char)('a' + random.Next(26))}\\x{random.Next(256):x2}\\n\"",
            3 => names > 0 ? $"\\n{random.Next(names) + 1}" : $"0{Convert.ToString(random.Next(256), 8)}",
            // A word ends with a space, for nbdkit.
            4 => $"({(random.Next(2) == 0 ? "le" : "be")}{16 << random.Next(3)}:{random.Next(65536)} )",
            5 => "$v",
            6 => $"<{file}[{random.Next(100)}:{random.Next(100, 3000)}]",
            7 => "<(printf ab)",
            _ => $"( {List(random, depth - 1, file, names)})",
        };
        return random.Next(5) switch
        {
            0 => $"{one}*{random.Next(5)}",
            // All have a first byte but for groups.
            1 when one[0] is not ('(' or '\\') => $"{one}[:1]",
            2 => $"({one} \"12345678\")[{random.Next(4)}:{random.Next(4, 9)}]",
            3 => $"({one})*{random.Next(3)}*2[0:]",
            _ => one,
        };
    }
}
