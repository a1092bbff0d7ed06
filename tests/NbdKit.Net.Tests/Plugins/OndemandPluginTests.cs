using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

[Platform("Linux")]
public sealed class OndemandPluginTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private static NbdBackend Chain(
        ScratchDirectory folder, string command = "truncate -s $size \"$disk\"", bool wait = false, bool share = false)
        => NbdBackend.Compose(new OndemandPlugin
        {
            Directory = folder.Path,
            Size = 200_000,
            Command = command,
            Wait = wait,
            Share = share,
        });

    [Test]
    public async Task Disks_are_made_once_and_kept()
    {
        using var folder = new ScratchDirectory();
        int seed = Environment.TickCount;
        byte[] model = new byte[200_000];
        for (int round = 0; round < 2; round++)
        {
            NbdBackend chain = Chain(folder);
            NextContext disk = await chain.OpenAsync("größer: 1.img");
            await new ChainHistory(disk, model, new Random(seed + round), $"seed {seed}").RunAsync(150);
            await disk.DisposeAsync();
            await chain.DisposeAsync();
        }
        Assert.That((await File.ReadAllBytesAsync(folder["größer: 1.img"])).AsSpan().SequenceEqual(model));
        Assert.That(Directory.GetFileSystemEntries(folder.Path), Has.Length.EqualTo(1));
    }

    [Test]
    public async Task The_default_export_is_a_file_too_and_disks_are_listed()
    {
        using var folder = new ScratchDirectory();
        folder.Write(".hidden", [1]);
        folder.Write("b", [1]);
        Directory.CreateDirectory(folder["a directory"]);
        NbdBackend chain = Chain(folder);
        await (await chain.OpenAsync()).DisposeAsync();
        await (await chain.OpenAsync("a")).DisposeAsync();
        Assert.That(File.Exists(folder["default"]));
        var list = new ExportList();
        await chain.ListExportsAsync(list, readOnly: false, null, None);
        Assert.That(list.Select(export => export.Name), Is.EqualTo(new[] { "", "a", "b" }));
        await chain.DisposeAsync();
    }

    [TestCase("../x")]
    [TestCase("..")]
    [TestCase(".")]
    [TestCase(".hidden")]
    [TestCase("a/b")]
    [TestCase("/etc/passwd")]
    [TestCase("a directory")]
    [TestCase("long")]
    public async Task A_name_that_is_no_disk_is_refused(string name)
    {
        using var folder = new ScratchDirectory();
        Directory.CreateDirectory(folder["a directory"]);
        NbdBackend chain = Chain(folder);
        await chain.StartAsync();
        string sent = name == "long" ? new string('ö', 128) : name;
        Assert.ThrowsAsync<NbdException>(() => chain.OpenAsync(sent).AsTask());
        Assert.That(Directory.GetFileSystemEntries(folder.Path), Has.Length.EqualTo(1));
        await chain.DisposeAsync();
    }

    [Test]
    public async Task A_disk_in_use_is_refused_or_waited_for_or_shared([Values("refused", "waited for", "shared")] string how)
    {
        using var folder = new ScratchDirectory();
        NbdBackend chain = Chain(folder, wait: how == "waited for", share: how == "shared");
        NextContext first = await chain.OpenAsync("a");
        Assert.That(first.Info.CanMultiConn, Is.EqualTo(how == "shared"));
        Task<NextContext> opening = chain.OpenAsync("a").AsTask();
        if (how == "refused")
        {
            NbdException failure = Assert.ThrowsAsync<NbdException>(() => opening)!;
            Assert.That((failure.Error, failure.Message), Is.EqualTo((NbdError.InvalidArgument, "ondemand: the disk is in use by another client")));
            await (await chain.OpenAsync("b")).DisposeAsync();
            NbdException other = Assert.ThrowsAsync<NbdException>(() => chain.OpenAsync("a", readOnly: true).AsTask())!;
            Assert.That(other.Message, Is.EqualTo(failure.Message));
        }
        if (how == "waited for")
        {
            await first.WriteAsync(new byte[] { 7 }, 0, RequestFlags.None, None);
            Assert.That(opening.IsCompleted, Is.False);
        }
        if (how != "shared")
        {
            await first.DisposeAsync();
        }
        NextContext second = how == "refused" ? await chain.OpenAsync("a") : await opening.WaitAsync(Peer.Deadline);
        await second.DisposeAsync();
        await first.DisposeAsync();
        await chain.DisposeAsync();
    }

    [Test]
    public async Task Two_clients_that_want_the_same_new_disk_have_it_made_once()
    {
        using var folder = new ScratchDirectory();
        using var log = new ScratchDirectory();
        NbdBackend chain = Chain(folder, $"echo x >> {log["made"]}; sleep 0.1; truncate -s $size \"$disk\"", share: true);
        await chain.StartAsync();
        NextContext[] disks = await Task.WhenAll(Enumerable.Range(0, 4).Select(_ => chain.OpenAsync("a").AsTask()));
        Assert.That(await File.ReadAllLinesAsync(log["made"]), Has.Length.EqualTo(1));
        foreach (NextContext disk in disks)
        {
            await disk.DisposeAsync();
        }
        await chain.DisposeAsync();
    }

    [TestCase("truncate -s 5 \"$disk\"; exit 1", "exit code 1")]
    [TestCase("exit 0", "no such file")]
    public async Task What_could_not_be_made_leaves_nothing_behind(string command, string message)
    {
        using var folder = new ScratchDirectory();
        NbdBackend chain = Chain(folder, command);
        await chain.StartAsync();
        NbdException failure = Assert.ThrowsAsync<NbdException>(() => chain.OpenAsync("a").AsTask())!;
        Assert.That(failure.Message, Does.Contain(message));
        Assert.That(Directory.GetFileSystemEntries(folder.Path), Is.Empty);
        await chain.DisposeAsync();
    }

    [Test]
    public async Task The_path_is_no_part_of_the_command()
    {
        using var folder = new ScratchDirectory();
        NbdBackend chain = Chain(folder, "printf %s \"${disk##*.ondemand-????????.???}\" > \"$disk\"");
        const string Evil = "$(touch x)`touch x`;touch x' \"\n&";
        NextContext disk = await chain.OpenAsync(Evil);
        byte[] read = new byte[disk.Info.Size];
        await disk.ReadAsync(read, 0, None);
        Assert.That(System.Text.Encoding.UTF8.GetString(read), Is.EqualTo("/" + Evil));
        await disk.DisposeAsync();
        await chain.DisposeAsync();
    }

    [Test]
    public async Task A_client_may_choose_the_size_of_a_new_disk()
    {
        using var folder = new ScratchDirectory();
        folder.Write("with:5", [1]);
        await using NbdBackend chain = new NbdCatalogue().Compose(
            "ondemand", [], [new("dir", folder.Path), new("", "200k"), new("max-size", "1M"), new("command", "truncate -s $size \"$disk\"")]);
        foreach ((string sent, long size) in new[]
        {
            ("a:300k", 300L << 10), ("b", 200L << 10), ("a", 300L << 10), ("a:1M", 300L << 10), (":5s", 2560L), ("c:0x100000", 1L << 20),
        })
        {
            await using NextContext disk = await chain.OpenAsync(sent);
            Assert.That(disk.Info.Size, Is.EqualTo(size), sent);
        }
        var list = new ExportList();
        await chain.ListExportsAsync(list, readOnly: false, null, None);
        Assert.That(list.Select(export => export.Name), Is.EqualTo(new[] { "", "a", "b", "c" }));
    }

    [TestCase("a:1048577", "the size 1048577 in the export name is more than the 1048576 bytes allowed")]
    [TestCase("a:16E", "no size")]
    [TestCase("a:-1", "no size")]
    [TestCase("a:", "no size")]
    [TestCase("a:1:2", "no size")]
    [TestCase("a:4Q", "no size")]
    [TestCase("../a:1", "cannot be the name of a disk")]
    [TestCase(".a:1", "cannot be the name of a disk")]
    public async Task A_size_that_is_none_or_too_large_makes_no_disk(string sent, string message)
    {
        using var folder = new ScratchDirectory();
        await using NbdBackend chain = NbdBackend.Compose(
            new OndemandPlugin { Directory = folder.Path, Size = 1, MaximumSize = 1 << 20, Command = "truncate -s $size \"$disk\"" });
        await chain.StartAsync();
        NbdException failure = Assert.ThrowsAsync<NbdException>(() => chain.OpenAsync(sent).AsTask())!;
        Assert.That(failure.Error, Is.EqualTo(NbdError.InvalidArgument));
        Assert.That(failure.Message, Does.Contain(message));
        Assert.That(Directory.GetFileSystemEntries(folder.Path), Is.Empty);
    }

    [Test]
    public void Settings_that_make_no_sense_end_the_start()
    {
        using var folder = new ScratchDirectory();
        NbdBackend chain = NbdBackend.Compose(new OndemandPlugin { Directory = folder["none"], Size = 1 });
        Assert.That(Assert.ThrowsAsync<NbdException>(() => chain.StartAsync().AsTask())!.Message, Does.Contain("not a directory"));
        Assert.Throws<ArgumentException>(() => new NbdCatalogue().Compose("ondemand", [], [new("size", "1M")]));
    }
}
