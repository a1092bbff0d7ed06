using Microsoft.Extensions.Logging;
using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class LogFactoryTests
{
    private string _file = "";

    [SetUp]
    public void CreateFile() => _file = Path.GetTempFileName();

    [TearDown]
    public void DeleteFile() => File.Delete(_file);

    private string Logged(bool verbose)
    {
        using (var factory = new LogFactory(new CommandOptions { Log = _file, Verbose = verbose, Name = "tool" }))
        {
            ILogger logger = factory.CreateLogger("NbdKit.memory");
            logger.Log(LogLevel.Debug, 0, "quiet", null, (state, _) => state);
            logger.Log(LogLevel.Error, 0, "loud", new InvalidOperationException("why"), (state, _) => state);
        }
        return File.ReadAllText(_file);
    }

    [Test]
    public void Warnings_and_worse_are_lines_without_a_stack()
        => Assert.That(Logged(verbose: false), Is.EqualTo("tool: memory: error: loud: why\n"));

    [Test]
    public void Verbose_logs_everything_with_the_whole_exception()
        => Assert.That(
            Logged(verbose: true),
            Does.StartWith("tool: memory: debug: quiet\ntool: memory: error: loud\nSystem.InvalidOperationException: why"));

    [Test]
    public void A_file_is_appended_to()
    {
        File.WriteAllText(_file, "before\n");
        Assert.That(Logged(verbose: false), Does.StartWith("before\ntool: "));
    }

    [Test]
    public void Nothing_is_logged_to_nowhere()
    {
        using var factory = new LogFactory(new CommandOptions { Log = LogFactory.ToNowhere, Verbose = true });
        Assert.That(factory.CreateLogger("x").IsEnabled(LogLevel.Critical), Is.False);
    }

    [Test]
    public void A_file_that_cannot_be_opened_is_named()
        => Assert.That(
            () => new LogFactory(new CommandOptions { Log = "/no/such/directory/log" }),
            Throws.TypeOf<CommandException>().With.Message.Contains("/no/such/directory"));
}
