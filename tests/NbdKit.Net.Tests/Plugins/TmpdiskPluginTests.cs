using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

[Platform("Linux")]
public sealed class TmpdiskPluginTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [Test]
    public async Task A_history_of_requests_leaves_what_it_should()
    {
        int seed = Environment.TickCount;
        NbdBackend chain = NbdBackend.Compose(new TmpdiskPlugin { Size = 200_000, Command = "truncate -s $size \"$disk\"" });
        NextContext disk = await chain.OpenAsync();
        await new ChainHistory(disk, new byte[200_000], new Random(seed), $"seed {seed}").RunAsync(400);
        await disk.DisposeAsync();
        await chain.DisposeAsync();
    }

    [Test]
    public async Task Each_client_has_a_disk_of_its_own_that_has_no_name()
    {
        using var folder = new ScratchDirectory();
        NbdBackend chain = new NbdCatalogue().Compose(
            "tmpdisk", [],
            [new("", "1M"), new("base", "a 'b'"), new("command", $"printf %s \"$base$size\" > \"$disk\"; echo \"$disk\" >> {folder["disks"]}; echo x")]);
        NextContext first = await chain.OpenAsync();
        NextContext second = await chain.OpenAsync();
        Assert.That((first.Info.Size, first.Info.CanMultiConn), Is.EqualTo((12L, false)));
        await first.WriteAsync(new byte[12], 0, RequestFlags.Fua, None);
        byte[] read = new byte[12];
        await second.ReadAsync(read, 0, None);
        Assert.That(read, Is.EqualTo("a 'b'1048576"u8.ToArray()));
        string[] disks = await File.ReadAllLinesAsync(folder["disks"]);
        Assert.That(disks.Distinct().Count(), Is.EqualTo(2));
        Assert.That(disks.Any(disk => Directory.Exists(Path.GetDirectoryName(disk))), Is.False);
        await first.DisposeAsync();
        await second.DisposeAsync();
        await chain.DisposeAsync();
    }

    [TestCase("echo sorry about $disk >&2; exit 5", "the command failed: exit code 5: sorry about disk")]
    [TestCase(": > \"$disk.other\"", "no such file")]
    [TestCase("mkdir \"$disk\"", "")]
    public async Task A_disk_that_cannot_be_made_fails_the_open(string command, string message)
    {
        NbdBackend chain = NbdBackend.Compose(new TmpdiskPlugin { Size = 1, Command = command });
        await chain.StartAsync();
        NbdException failure = Assert.ThrowsAsync<NbdException>(() => chain.OpenAsync().AsTask())!;
        Assert.That(failure.Message, Does.Contain(message).IgnoreCase);
        await chain.DisposeAsync();
    }

    [TestCase("type=nosuchfs", "mkfs.nosuchfs must be installed")]
    [TestCase("type=../x", "not the name of a file system")]
    [TestCase("disk=x", "disk")]
    [TestCase("base=x", "without a command")]
    public void Settings_that_make_no_sense_end_the_start(string parameter, string message)
    {
        string[] parts = parameter.Split('=');
        NbdBackend chain = new NbdCatalogue().Compose("tmpdisk", [], [new("size", "1M"), new(parts[0], parts[1])]);
        Assert.That(Assert.CatchAsync(() => chain.StartAsync().AsTask())!.Message, Does.Contain(message));
    }
}
