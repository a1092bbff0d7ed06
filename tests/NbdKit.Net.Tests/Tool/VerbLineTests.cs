using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class VerbLineTests
{
    private static readonly VerbOption[] Known =
    [
        new('a', ["alpha", "first"], null, ""),
        new('n', ["number"], "N", ""),
        new('o', ["maybe"], "X", "") { IsArgumentOptional = true },
    ];

    [TestCase("--alpha x", "alpha=", "x")]
    [TestCase("--first", "alpha=", "")]
    [TestCase("x -a y", "alpha=", "x y")]
    [TestCase("--number 5 --number=6", "number=5 number=6", "")]
    [TestCase("-n5 -n 6 -an7", "number=5 number=6 alpha= number=7", "")]
    [TestCase("--maybe x", "maybe=", "x")]
    [TestCase("--maybe=y -o x", "maybe=y maybe=", "x")]
    [TestCase("-- --alpha -a", "", "--alpha -a")]
    [TestCase("- -a", "alpha=", "-")]
    [TestCase("-a [ p --alpha -z ] y", "alpha=", "[,p,--alpha,-z y")]
    [TestCase("[ p [ q ] r ]", "", "[,p,[,q,],r")]
    [TestCase("-- - [ p ]", "", "- [,p")]
    public void Arguments_are_parsed(string line, string options, string bare)
    {
        VerbLine parsed = VerbLine.Parse(Words(line), Known);
        Assert.That(parsed.Options.Select(o => $"{o.Key}={o.Value}"), Is.EqualTo(Words(options)));
        Assert.That(parsed.Bare.Select(words => string.Join(',', words)), Is.EqualTo(Words(bare)));
    }

    [TestCase("--beta", "no option --beta")]
    [TestCase("-z", "no option -z")]
    [TestCase("--alpha=1", "takes no argument")]
    [TestCase("--number", "needs an argument: N")]
    [TestCase("-n", "needs an argument: N")]
    [TestCase("[ p", "has no ]")]
    [TestCase("[ p [ q ]", "has no ]")]
    public void What_makes_no_sense_is_named(string line, string says)
        => Assert.That(
            () => VerbLine.Parse(Words(line), Known), Throws.TypeOf<CommandException>().With.Message.Contains(says));

    private static string[] Words(string line) => line.Split(' ', StringSplitOptions.RemoveEmptyEntries);
}
