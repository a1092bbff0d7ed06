using System.Text;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

[Platform("Linux")]
public sealed class IsoPluginTests
{
    private static string Program(ScratchDirectory folder, string name, string script)
        => folder.WriteProgram(name, "#!/bin/sh\n" + script);

    [TestCase("xorriso", "-as,mkisofs,-quiet,-J,-V,a b,")]
    [TestCase("mkisofs", "-quiet,-J,-V,a b,")]
    public async Task What_the_program_prints_is_the_disk(string name, string arguments)
    {
        using var folder = new ScratchDirectory();
        string program = Program(folder, name, "IFS=,; printf '%s' \"$*\"");
        NbdBackend chain = new NbdCatalogue().Compose(
            "iso", [], [new("", folder.Path), new("dir", "/tmp"), new("params", "-J -V \"a b\""), new("prog", program)]);
        NextContext disk = await chain.OpenAsync();
        NextContext other = await chain.OpenAsync();
        byte[] read = new byte[disk.Info.Size];
        await disk.ReadAsync(read, 0, CancellationToken.None);
        Assert.That(Encoding.UTF8.GetString(read), Is.EqualTo($"{arguments}{folder.Path},/tmp"));
        Assert.That((disk.Info.CanWrite, disk.Info.CanMultiConn), Is.EqualTo((false, true)));
        await disk.DisposeAsync();
        await other.ReadAsync(read, 0, CancellationToken.None);
        await other.DisposeAsync();
        await chain.DisposeAsync();
    }

    [Test]
    public void A_program_that_fails_or_is_not_there_ends_the_start()
    {
        using var folder = new ScratchDirectory();
        Assert.That(Failure(new IsoPlugin { Directories = [folder.Path], Program = "no-such-mkisofs" }), Does.Contain("no-such-mkisofs must be installed"));
        Assert.That(Failure(new IsoPlugin { Directories = [folder["none"]] }), Does.Contain("not a directory"));
        string program = Program(folder, "mkisofs", "echo bad option >&2; exit 3");
        Assert.That(
            Failure(new IsoPlugin { Directories = [folder.Path], Program = program }), Is.EqualTo("iso: mkisofs failed: exit code 3: bad option"));
    }

    [TestCase("", "")]
    [TestCase("  -J  -r ", "-J|-r")]
    [TestCase("-V 'My \"Disk\"' \"a'b\" c\\ d ''", "-V|My \"Disk\"|a'b|c d|")]
    public void Parameters_are_words(string text, string words)
        => Assert.That(string.Join('|', IsoPlugin.Words(text)), Is.EqualTo(words));

    [Test]
    public void A_quotation_mark_must_be_closed()
        => Assert.That(Assert.Throws<ArgumentException>(() => IsoPlugin.Words("-V 'x"))!.Message, Does.Contain("params="));

    private static string Failure(IsoPlugin plugin)
        => Assert.ThrowsAsync<NbdException>(() => NbdBackend.Compose(plugin).StartAsync().AsTask())!.Message;
}
