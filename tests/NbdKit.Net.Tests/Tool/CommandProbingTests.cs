using NbdKit.Tests.Testing;
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
    [Platform("Linux")]
    public async Task A_script_is_asked_about_itself_as_nbdkit_does_it([Values] bool reference)
    {
        using var folder = new ScratchDirectory();
        string script = folder.WriteProgram("script", """
            #!/bin/sh
            echo "$@" >> "$(dirname "$0")/log"
            case $1 in
                dump_plugin) printf 'colour=green\nshape=round' ;;
                thread_model) echo serialize_requests ;;
                config) ;;
                *) exit 2 ;;
            esac
            """);
        string output;
        if (reference)
        {
            Peer.Require("nbdkit");
            output = await Peer.OutputAsync("nbdkit", "--dump-plugin", "sh", script, "a=b");
        }
        else
        {
            (int status, output, string error) = await ToolProcess.RunAsync("--dump-plugin", "sh", script, "a=b");
            Assert.That(status, Is.Zero, error);
            Assert.That(output, Does.Contain("\nmax_known_status=8\n").And.EndWith("\n"));
        }
        Assert.That(
            output,
            Does.Contain("\nname=sh\n").And.Contain("\nthread_model=serialize_requests\n").And.Contain("\nmagic_config_key=script\n")
                .And.Contain("\ncolour=green\nshape=round"));
        Assert.That(
            await File.ReadAllLinesAsync(folder["log"]),
            Is.EqualTo(new[] { "load", "magic_config_key", "config a b", "thread_model", "dump_plugin", "unload" }));
    }

    [Test]
    public async Task Every_plugin_is_dumped_without_parameters()
    {
        foreach (NbdPluginEntry entry in new NbdCatalogue().Plugins)
        {
            string text = await Probing.PluginAsync(new NbdCatalogue(), CommandLine.Parse(["--dump-plugin", entry.Name]));
            Assert.That(
                text,
                Does.Contain($"\nname={entry.Name}\n").And.Contain("\nversion=")
                    .And.Contain($"\nparameters={string.Join(' ', entry.Parameters.Select(p => p.Name))}\n"));
            Assert.That(text.Contains("max_known_status=8\n", StringComparison.Ordinal), Is.EqualTo(entry.Name is "sh" or "eval"), entry.Name);
            Assert.That(text.Split('\n')[..^1], Has.All.Contains("="));
        }
    }

    [Test]
    [Platform("Linux")]
    public async Task Fragments_are_asked_too_and_a_script_that_fails_is_an_error()
    {
        (int status, string output, _) = await ToolProcess.RunAsync("--dump-plugin", "eval", "dump_plugin=echo a=b", "thread_model=echo parallel");
        Assert.That((status, output), Is.EqualTo((0, output)));
        Assert.That(output, Does.Contain("\nthread_model=parallel\n").And.EndWith("\na=b\n"));
        (status, output, string error) = await ToolProcess.RunAsync("--dump-plugin", "eval", "dump_plugin=echo no good >&2; exit 1");
        Assert.That((status, output), Is.EqualTo((1, "")));
        Assert.That(error, Does.Contain("dump_plugin: no good"));
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
