using NbdKit.Tool;
using NbdKit.Tool.Copying;

namespace NbdKit.Tests.Tool.Copying;

public sealed class CopyCommandLineTests
{
    [Test]
    public void The_defaults_are_those_of_nbdcopy_with_a_flush()
    {
        CopyCommandOptions options = Parse("a b");
        Assert.Multiple(() =>
        {
            Assert.That(options.Source!.Text, Is.EqualTo("a"));
            Assert.That(options.Destination!.Text, Is.EqualTo("b"));
            Assert.That(options.Connections, Is.EqualTo(4));
            Assert.That(options.Copy, Is.EqualTo(new NbdCopyOptions()));
            Assert.That(options.Copy.MaxRequestsInFlight, Is.EqualTo(64));
            Assert.That(options.Copy.RequestSize, Is.EqualTo(256 << 10));
            Assert.That(options.Copy.MaxBytesInFlight, Is.EqualTo(16 << 20));
            Assert.That(options.Copy.SparseSize, Is.EqualTo(4096));
            Assert.That(options.Copy.Flush);
        });
    }

    [Test]
    public void Every_option_has_its_effect()
    {
        CopyCommandOptions options = Parse(
            "--allocated -C 2 --target-is-zero --no-flush --no-extents -p --queue-size=1M --request-size=64K -R 7 -S 0 "
            + "--resume=j --hash --verify -v -T 3 a b");
        Assert.Multiple(() =>
        {
            Assert.That(options.Copy, Is.EqualTo(new NbdCopyOptions
            {
                Allocated = true,
                DestinationIsZero = true,
                Flush = false,
                UseExtents = false,
                MaxBytesInFlight = 1 << 20,
                RequestSize = 65_536,
                MaxRequestsInFlight = 7,
                SparseSize = 0,
                JournalPath = "j",
                ComputeHash = true,
                Verify = true,
            }));
            Assert.That((options.Connections, options.Progress, options.Resume, options.Verbose), Is.EqualTo((2, true, true, true)));
        });
    }

    [Test]
    public void The_journal_of_a_file_lies_beside_it()
    {
        Assert.That(Parse("--resume a dir/b").Copy.JournalPath, Is.EqualTo(Path.GetFullPath("dir/b.journal")));
        Assert.That(Parse("--progress=2 a b").ProgressDescriptor, Is.EqualTo(2));
        Assert.That(Parse("--synchronous a b").Copy.MaxRequestsInFlight, Is.EqualTo(1));
        Assert.That(Parse("- null:").ToNowhere);
        Assert.That(Parse("--help").Help);
    }

    [TestCase("a", "1 were given")]
    [TestCase("a b c", "3 were given")]
    [TestCase("null: b", "only be the destination")]
    [TestCase("x x", "both the source and the destination")]
    [TestCase("--resume - b", "not for standard input")]
    [TestCase("--resume a null:", "not for standard input")]
    [TestCase("--resume a nbd://h", "--resume=JOURNAL")]
    [TestCase("--verify a -", "--verify")]
    [TestCase("--request-size=5 a b", "power of two")]
    [TestCase("--sparse=100 a b", "power of two")]
    [TestCase("--requests=0 a b", "not between 1")]
    [TestCase("--queue-size=x a b", "not a number")]
    public void What_makes_no_sense_is_refused(string line, string says)
        => Assert.That(() => Parse(line), Throws.TypeOf<CommandException>().With.Message.Contains(says));

    private static CopyCommandOptions Parse(string line) => CopyCommandLine.Parse(line.Split(' '));
}
