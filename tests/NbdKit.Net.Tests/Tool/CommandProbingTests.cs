using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

[Parallelizable(ParallelScope.All)]
public sealed class CommandProbingTests
{
    [Test]
    public async Task Version_is_printed_with_that_of_the_plugin()
    {
        (int status, string output, string error) = await ToolProcess.RunAsync("memory", "--version");
        Assert.That((status, error), Is.EqualTo((0, "")));
        Assert.That(output, Does.Match("^nbdkit-net ([0-9.]+[^\n]*)\nmemory \\1\n$"));
    }

    [Test]
    public async Task Help_is_printed()
    {
        (int status, string output, string error) = await ToolProcess.RunAsync("--help");
        Assert.That((status, output, error), Is.EqualTo((0, Help.Text(new NbdCatalogue(), null, []), "")));
    }

    [Test]
    public async Task The_configuration_is_dumped()
    {
        (int status, string output, _) = await ToolProcess.RunAsync("--dump-config");
        Assert.That(status, Is.Zero);
        Assert.That(
            output,
            Does.Contain("\nname=nbdkit-net\n").And.Match("(?m)^plugins=.*\\bmemory\\b").And.Match("(?m)^version_major=[0-9]+$"));
    }

    [Test]
    public async Task A_plugin_is_dumped()
    {
        (int status, string output, _) = await ToolProcess.RunAsync("--dump-plugin", "memory", "1M");
        Assert.That(status, Is.Zero);
        Assert.That(
            output,
            Does.Contain("\nname=memory\n").And.Contain("\nthread_model=parallel\n").And.Contain("\nmagic_config_key=size\n"));
    }

    [Test]
    public async Task Options_are_listed()
    {
        Assert.That(
            (await ToolProcess.RunAsync("--long-options")).Output,
            Does.Contain("--mask-handshake\n").And.Contain("--vsock\n").And.Not.Contain("--swap"));
        Assert.That(
            (await ToolProcess.RunAsync("--short-options")).Output,
            Does.Contain("-U\n").And.Not.Contain("-D\n"));
    }

    [TestCase("nbdkit-net: Unknown parameter 'sise'.*size", "memory", "sise=1M")]
    [TestCase("nbdkit-net: There is no plugin named 'memroy'.*memory", "memroy", "1M")]
    [TestCase("nbdkit-net: There is no filter named 'nosuch'", "--filter=nosuch", "memory", "1M")]
    [TestCase("nbdkit-net: memory: .*size.*1Z", "memory", "1Z")]
    [TestCase("nbdkit-net: there is no option --sise", "--sise=1", "memory")]
    [TestCase("nbdkit-net: file: .*/no/such/file", "file", "/no/such/file")]
    [TestCase("mine: cannot open the log: .*/no/such", "--name=mine", "--log=/no/such/directory/log", "memory", "1M")]
    public async Task A_mistake_is_explained_in_one_line(string expected, params string[] arguments)
    {
        (int status, string output, string error) = await ToolProcess.RunAsync(arguments);
        Assert.That((status, output), Is.EqualTo((1, "")));
        Assert.That(error, Does.Match($"^{expected}[^\n]*\n$"));
    }
}
