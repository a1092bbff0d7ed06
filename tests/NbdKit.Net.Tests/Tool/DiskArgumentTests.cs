using NbdKit.Tests.Testing;
using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

public sealed class DiskArgumentTests
{
    [TestCase("nbd://localhost", true)]
    [TestCase("NBD+UNIX:///?socket=/x", true)]
    [TestCase("nbds://h/e", true)]
    [TestCase("disk.img", false)]
    [TestCase("./nbd:x", false)]
    [TestCase("http://x", false)]
    public void A_word_is_a_uri_or_a_file(string word, bool isUri)
    {
        DiskArgument disk = DiskArgument.Parse([word]);
        Assert.That(disk.IsUri, Is.EqualTo(isUri));
        Assert.That(disk.Path, isUri ? Is.Null : Is.EqualTo(Path.GetFullPath(word)));
    }

    [Test]
    public async Task What_stands_in_brackets_is_a_chain()
    {
        using var log = new LogFactory(new CommandOptions());
        DiskArgument disk = DiskArgument.Parse(["[", "--filter=offset", "memory", "1M", "offset=4096"]);
        await using OpenedDisk opened = await disk.OpenAsync(new NbdCatalogue(), false, 3, log, CancellationToken.None);
        Assert.That(opened.Info.Size, Is.EqualTo((1 << 20) - 4096));
        Assert.That(opened.Contexts, Has.Count.EqualTo(3));
        Assert.That(disk.Text, Is.EqualTo("[ --filter=offset memory 1M offset=4096 ]"));
    }

    [Test]
    public async Task A_chain_that_takes_one_connection_at_a_time_is_opened_once()
    {
        using var log = new LogFactory(new CommandOptions());
        DiskArgument disk = DiskArgument.Parse(["[", "--filter=noparallel", "memory", "1M", "serialize=connections"]);
        await using OpenedDisk opened = await disk.OpenAsync(new NbdCatalogue(), false, 3, log, CancellationToken.None).Soon();
        Assert.That(opened.Contexts, Has.Count.EqualTo(1));
    }

    [TestCase("[ memory 1M -U - ", "nothing about serving")]
    [TestCase("[ memory 1M --run true", "nothing about serving")]
    [TestCase("[ memory --help", "nothing about serving")]
    [TestCase("[", "no plugin")]
    public void What_is_not_a_chain_is_refused(string line, string says)
        => Assert.That(
            () => DiskArgument.Parse(line.Split(' ', StringSplitOptions.RemoveEmptyEntries)),
            Throws.TypeOf<CommandException>().With.Message.Contains(says));

    [Test]
    public void A_file_that_is_not_there_is_named()
    {
        using var folder = new ScratchDirectory();
        using var log = new LogFactory(new CommandOptions());
        DiskArgument disk = DiskArgument.Parse([folder["none"]]);
        Assert.That(
            () => disk.OpenAsync(new NbdCatalogue(), true, 1, log, CancellationToken.None),
            Throws.TypeOf<CommandException>().With.Message.Contains(folder["none"]));
    }
}
