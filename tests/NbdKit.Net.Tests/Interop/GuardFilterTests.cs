using System.Diagnostics;
using System.Numerics;
using System.Text.RegularExpressions;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>Filters that count, judge, limit and hold up requests, under real clients; most of them through the command.</summary>
[Parallelizable(ParallelScope.All)]
public sealed partial class GuardFilterTests
{
    [Test]
    public async Task The_statistics_of_qemu_io_are_those_that_nbdkit_counts()
    {
        Peer.Require("nbdkit", "qemu-io");
        using var folder = new ScratchDirectory();
        // nbdkit miscounts what a lower threshold leaves out, and leaves out sizes that are as frequent as another.
        string[] parameters = ["--filter=stats", "memory", "64M", "statsthreshold=100"];
        await ServeAsync(folder, [.. parameters, $"statsfile={folder["ours"]}"], QemuIoAsync);
        await using (BackgroundServer nbdkit = await BackgroundServer.NbdkitAsync(
            folder, [.. parameters, $"statsfile={folder["theirs"]}"]))
        {
            await QemuIoAsync(nbdkit.Uri);
            nbdkit.Signal(15);
            await nbdkit.EndAsync();
        }
        Assert.That(await CountsAsync(folder["ours"]), Is.EqualTo(await CountsAsync(folder["theirs"])));

        static Task QemuIoAsync(string uri) => Peer.OutputAsync(
            "qemu-io", "-f", "raw",
            "-c", "write -P 1 0 4k", "-c", "write -P 1 4k 4k", "-c", "write -P 1 12k 4k", "-c", "write -P 1 1M 128k",
            "-c", "read 0 64k", "-c", "read 64k 64k", "-c", "read 512 512", "-c", "write -z 2M 64k", "-c", "discard 4M 1M", "-c", "flush",
            uri);
    }

    [Test]
    public async Task The_command_serves_as_many_clients_as_the_limit_says()
    {
        Peer.Require("nbdinfo");
        using var folder = new ScratchDirectory();
        await ServeAsync(folder, ["--filter=limit", "memory", "1M", "limit=1"], async uri =>
        {
            // The first client asks for a second one while it is there.
            await LibNbd.RunAsync(uri, """
                import subprocess
                h = connect()
                assert subprocess.call(['nbdinfo', '--size', uri], stderr=subprocess.DEVNULL) != 0
                h.pread(512, 0)
                """);
            // It takes the server a moment to notice that the client is gone.
            var real = Stopwatch.StartNew();
            while ((await Peer.RunAsync("nbdinfo", "--size", uri)).Status != 0)
            {
                Assert.That(real.Elapsed, Is.LessThan(Peer.Deadline));
            }
        });
    }

    [Test]
    public async Task Qemu_is_told_what_a_policy_refuses_and_nbdcopy_is_counted()
    {
        var policy = new PolicyFilter
        {
            Decide = (ref PolicyRequest request)
                => request.Operation == RequestOperation.Write && request.Offset < 4096 ? NbdError.PermissionDenied : null,
        };
        var count = new CountFilter();
        using var folder = new ScratchDirectory();
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 1 << 20 }, policy, count);
        PeerResult refused = await Peer.RunAsync("qemu-io", "-f", "raw", "-c", "write 0 512", "-c", "write -P 3 4k 512", server.Uri);
        Assert.That(refused.ToString(), Does.Contain("Operation not permitted"));
        await Peer.OutputAsync("nbdcopy", "--no-extents", server.Uri, folder["copy"]);
        Assert.That((await File.ReadAllBytesAsync(folder["copy"])).AsSpan(4096, 512).IndexOfAnyExcept((byte)3), Is.EqualTo(-1));
        Assert.That((count.BytesRead, count.BytesWritten), Is.EqualTo((1L << 20, 512L)));
    }

    [Test]
    public async Task Nbdcopy_does_not_notice_evil_and_qemu_img_does()
    {
        Peer.Require("nbdcopy", "qemu-img");
        using var folder = new ScratchDirectory();
        string disk = folder.Write("disk", TestData.Random(8 << 20));
        string[] serve = ["--filter=evil", "file", disk, "evil-probability=1e-5", "evil-seed=7"];
        await ServeAsync(folder, serve, uri => Peer.OutputAsync("nbdcopy", uri, folder["one"]));
        await ServeAsync(folder, serve, uri => Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "raw", uri, folder["two"]));
        await SameFile.CheckAsync(folder["one"], folder["two"], "what two clients read of the same stuck bits");
        byte[] good = await File.ReadAllBytesAsync(disk);
        int bad = (await File.ReadAllBytesAsync(folder["one"])).Zip(good).Sum(pair => BitOperations.PopCount((uint)(pair.First ^ pair.Second)));
        // 671 bits are stuck, half of them at what they are anyway.
        Assert.That(bad, Is.InRange(250, 430));
        PeerResult compared = await Peer.RunAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", disk, folder["one"]);
        compared.Expect(1);
    }

    [Test]
    public async Task The_command_ends_when_nbdinfo_has_left()
    {
        Peer.Require("nbdinfo");
        using var folder = new ScratchDirectory();
        await using ToolProcess tool = ToolProcess.Start("-U", folder["s"], "--filter=exitlast", "memory", "1M");
        await tool.LineAsync();
        await Peer.OutputAsync("nbdinfo", "--size", $"nbd+unix:///?socket={folder["s"]}");
        (int status, _, string error) = await tool.EndAsync();
        Assert.That((status, error), Is.EqualTo((0, "")));
    }

    [Test]
    public async Task The_command_ends_when_a_file_is_there_a_pipe_is_closed_a_process_has_ended_or_a_script_says_so(
        [Values("file", "pipe", "process", "script")] string kind)
    {
        Peer.Require("nbdinfo", "/bin/sh");
        using var folder = new ScratchDirectory();
        using var helper = Process.Start(
            new ProcessStartInfo("cat") { RedirectStandardInput = true, RedirectStandardOutput = true })!;
        string parameter = kind switch
        {
            "file" => $"exit-when-file-created={folder["stop"]}",
            "pipe" => "exit-when-pipe-closed=0",
            "process" => $"exit-when-process-exits={helper.Id}",
            _ => $"exit-when-script=test ! -e '{folder["stop"]}' || exit 88",
        };
        await using ToolProcess tool = ToolProcess.Start(
            "-U", folder["s"], "--filter=exitwhen", "memory", "1M", parameter, "exit-when-poll=50ms");
        await tool.LineAsync();
        string uri = $"nbd+unix:///?socket={folder["s"]}";
        await Peer.OutputAsync("nbdinfo", "--size", uri);
        await Peer.OutputAsync("nbdinfo", "--size", uri);
        folder.Write("stop", []);
        helper.StandardInput.Close();
        tool.Process.StandardInput.Close();
        (int status, _, string error) = await tool.EndAsync();
        Assert.That((status, error), Is.EqualTo((0, "")));
        await helper.WaitForExitAsync().Soon();
    }

    [Test]
    public async Task Clients_run_into_their_quota_and_their_time_limit()
    {
        Peer.Require("nbdcopy", "nbdinfo");
        using var folder = new ScratchDirectory();
        await ServeAsync(folder, ["--filter=quota", "pattern", "8M", "quota-read=4M"], async uri =>
        {
            PeerResult result = await Peer.RunAsync("nbdcopy", "--connections=1", uri, "null:");
            result.Expect(1);
            Assert.That(result.Errors, Does.Contain("shutdown").IgnoreCase);
            await LibNbd.RunAsync(uri, """
                h = connect()
                for i in range(4):
                    h.pread(1 << 20, i << 20)
                fails(errno.ESHUTDOWN, h.pread, 512, 0)
                """);
        });
        await ServeAsync(folder, ["--filter=time-limit", "memory", "8M", "time-limit=0", "time-limit-idle=1"], uri => LibNbd.RunAsync(uri, """
            h = connect()
            while not h.aio_is_dead() and not h.aio_is_closed():
                h.poll(20000)
            """));
    }

    [Test]
    public async Task Qemu_io_reads_what_ddrescue_has_rescued_and_nothing_else()
    {
        Peer.Require("qemu-io");
        using var folder = new ScratchDirectory();
        string disk = folder.Write("disk", [.. Enumerable.Repeat((byte)7, 1 << 20)]);
        string map = folder.Write("map", "0x0 + 1\n0x0 0x80000 +\n0x80000 0x200 -\n0x80200 0x7FE00 +\n"u8.ToArray());
        await ServeAsync(folder, ["--filter=ddrescue", "file", disk, $"ddrescue-mapfile={map}"], async uri =>
        {
            await Peer.OutputAsync("qemu-io", "-r", "-f", "raw", "-c", "read -P 7 0 512k", "-c", "read -P 7 524800 523776", uri);
            PeerResult bad = await Peer.RunAsync("qemu-io", "-r", "-f", "raw", "-c", "read 512k 512", uri);
            Assert.That(bad.ToString(), Does.Contain("Input/output error"));
        });
    }

    [Test]
    public async Task Nbdcopy_copies_from_a_disk_that_spins_and_fails_now_and_then()
    {
        Peer.Require("nbdinfo", "nbdcopy");
        using var folder = new ScratchDirectory();
        await ServeAsync(
            folder,
            [
                "--filter=spinning", "--filter=retry-request", "--filter=error", "pattern", "4M", "heads=4", "min-seek-time=0", "half-seek-time=1ms",
                "max-seek-time=2ms", "retry-request-retries=20", "retry-request-delay=1ms", "error-rate=30%",
            ],
            async uri =>
            {
                Assert.That(await Peer.OutputAsync("nbdinfo", uri), Does.Contain("is_rotational: true"));
                await Peer.OutputAsync("nbdcopy", uri, folder["copy"]);
            });
        await ServeAsync(folder, ["pattern", "4M"], uri => Peer.OutputAsync("nbdcopy", uri, folder["plain"]));
        await SameFile.CheckAsync(folder["copy"], folder["plain"], "what was read in spite of errors");
    }

    /// <summary>Serves with the command on a Unix socket, to which the client connects, until it has ended.</summary>
    private static async Task ServeAsync(ScratchDirectory folder, string[] arguments, Func<string, Task> use)
    {
        await using ToolProcess tool = ToolProcess.Start(["-U", folder["s"], .. arguments]);
        await tool.LineAsync();
        await use($"nbd+unix:///?socket={folder["s"]}");
        tool.Signal(15);
        (int status, _, string error) = await tool.EndAsync();
        Assert.That((status, error), Is.EqualTo((0, "")));
    }

    /// <summary>What is counted in a file of statistics, without what is measured.</summary>
    private static async Task<string> CountsAsync(string path)
    {
        string[] lines = await File.ReadAllLinesAsync(path);
        return string.Join('\n', lines.Select(line => Measured().Replace(line, "")));
    }

    [GeneratedRegex(@", [0-9.]+ s|, [^,]*/s( op| total|$)")]
    private static partial Regex Measured();
}
