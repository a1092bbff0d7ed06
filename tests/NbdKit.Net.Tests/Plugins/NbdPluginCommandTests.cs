using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Plugins;

/// <summary>Servers that the nbd plugin runs itself.</summary>
[Platform("Linux")]
public sealed class NbdPluginCommandTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    private static async Task<byte[]> HeadAsync(NextContext disk)
    {
        byte[] head = new byte[4096];
        await disk.ReadAsync(head, 0, None).AsTask().WaitAsync(Peer.Deadline);
        return head;
    }

    [Test]
    public async Task A_server_that_takes_a_listening_socket_is_run_and_ended()
    {
        Peer.Require("qemu-nbd", "qemu-img");
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(1 << 20, 3);
        await Peer.OutputAsync(
            "qemu-img", "convert", "-f", "raw", "-O", "qcow2", folder.Write("raw", content), folder["a disk.qcow2"]);
        NbdBackend chain = new NbdCatalogue().Compose(
            "nbd", [],
            [
                new("command", "qemu-nbd"), new("arg", "-f"), new("arg", "qcow2"), new("arg", $"--pid-file={folder["pid"]}"),
                new("arg", folder["a disk.qcow2"]),
            ]);
        NextContext disk = await chain.OpenAsync().AsTask().WaitAsync(Peer.Deadline);
        await disk.WriteAsync(new byte[512], 512, RequestFlags.Fua, None);
        content.AsSpan(512, 512).Clear();
        Assert.That(await HeadAsync(disk), Is.EqualTo(content[..4096]));
        string pid = (await File.ReadAllTextAsync(folder["pid"])).Trim();
        await disk.DisposeAsync();
        await chain.DisposeAsync().AsTask().WaitAsync(Peer.Deadline);
        Assert.That(Directory.Exists($"/proc/{pid}"), Is.False);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "qcow2", "-O", "raw", folder["a disk.qcow2"], folder["after"]);
        Assert.That((await File.ReadAllBytesAsync(folder["after"])).AsSpan().SequenceEqual(content));
    }

    [Test]
    public async Task A_server_on_its_standard_streams_is_run_and_ended()
    {
        Peer.Require("nbdkit");
        NbdBackend chain = new NbdCatalogue().Compose(
            "nbd", [], [new("command", "nbdkit"), new("arg", "-s"), new("arg", "pattern"), new("arg", "1M"), new("command-stdio", "1")]);
        NextContext disk = await chain.OpenAsync().AsTask().WaitAsync(Peer.Deadline);
        Assert.That((await HeadAsync(disk))[15], Is.EqualTo(8));
        await disk.DisposeAsync();
        await chain.DisposeAsync().AsTask().WaitAsync(Peer.Deadline);
    }

    [Test]
    public async Task Filters_stand_before_it_and_clients_share_it()
    {
        Peer.Require("nbdkit");
        NbdBackend chain = NbdBackend.Compose(
            new NbdPlugin { Command = ["nbdkit", "-f", "pattern", "1M"] }, new OffsetFilter { Offset = 4096 });
        NextContext first = await chain.OpenAsync().AsTask().WaitAsync(Peer.Deadline);
        NextContext second = await chain.OpenAsync();
        Assert.That(await HeadAsync(first), Is.EqualTo(await HeadAsync(second)));
        Assert.That((await HeadAsync(first))[6], Is.EqualTo(0x10));
        await first.DisposeAsync();
        await second.DisposeAsync();
        await chain.DisposeAsync().AsTask().WaitAsync(Peer.Deadline);
    }

    [Test]
    public async Task A_server_that_died_is_started_again_if_a_policy_says_so([Values] bool policy)
    {
        Peer.Require("nbdkit");
        using var folder = new ScratchDirectory();
        NbdBackend chain = NbdBackend.Compose(new NbdPlugin
        {
            Command = ["sh", "-c", $"echo $$ >> {folder["pids"]}; exec nbdkit -f memory 1M"],
            // The shell becomes the server, and its number is the one that the socket is for.
            Reconnect = policy ? new NbdReconnectPolicy { Delay = TimeSpan.Zero, Attempts = 20 } : null,
        });
        NextContext disk = await chain.OpenAsync().AsTask().WaitAsync(Peer.Deadline);
        await HeadAsync(disk);
        string first = (await File.ReadAllLinesAsync(folder["pids"]))[0];
        await Peer.OutputAsync("kill", "-9", first);
        if (policy)
        {
            Assert.That((await HeadAsync(disk)).Any(b => b != 0), Is.False);
            Assert.That(await File.ReadAllLinesAsync(folder["pids"]), Has.Length.EqualTo(2));
        }
        else
        {
            Exception failure = Assert.CatchAsync(() => HeadAsync(disk))!;
            Assert.That(failure.Message, Is.Not.Empty);
        }
        await disk.DisposeAsync();
        await chain.DisposeAsync().AsTask().WaitAsync(Peer.Deadline);
    }

    [TestCase("/nonexistent/server", "127")]
    [TestCase("sh -c 'echo no such disk >&2; exit 7'", "exit code 7): no such disk")]
    [TestCase("sh -c 'kill -9 $$'", "signal 9")]
    public void A_server_that_ends_at_once_says_why(string command, string message)
    {
        string[] words = command.Contains('\'') ? ["sh", "-c", command.Split('\'')[1]] : [command];
        NbdBackend chain = NbdBackend.Compose(new NbdPlugin { Command = words });
        NbdException failure = Assert.ThrowsAsync<NbdException>(() => chain.StartAsync().AsTask())!;
        Assert.That(failure.Message, Does.StartWith("nbd: the server ").And.Contain(message));
    }

    [TestCase("arg=x", "uri=nbd://h/", "arg=")]
    [TestCase("command=x", "uri=nbd://h/", "exactly one")]
    [TestCase("command=x", "shared=false", "shared=false")]
    [TestCase("command=x", "dynamic-export=true", "dynamic-export")]
    public void Parameters_that_do_not_fit_are_named(string first, string second, string named)
    {
        KeyValuePair<string, string>[] parameters =
            [.. new[] { first, second }.Select(p => new KeyValuePair<string, string>(p.Split('=', 2)[0], p.Split('=', 2)[1]))];
        Assert.That(
            Assert.Throws<ArgumentException>(() => new NbdCatalogue().Compose("nbd", [], parameters))!.Message, Does.Contain(named));
    }
}
