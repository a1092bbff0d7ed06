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
        string[] parameters = ["--filter=stats", "memory", "64M", $"statsfile={folder["ours"]}"];
        await ServeAsync(folder, parameters, QemuIoAsync);
        await using (BackgroundServer nbdkit = await BackgroundServer.NbdkitAsync(
            folder, "--filter=stats", "memory", "64M", $"statsfile={folder["theirs"]}"))
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
        Peer.Require("nbdinfo", "qemu-io");
        using var folder = new ScratchDirectory();
        await ServeAsync(folder, ["--filter=limit", "memory", "1M", "limit=1"], async uri =>
        {
            // The first client asks for a second one while it is there.
            PeerResult inner = await Peer.RunAsync(
                "nbdsh", "-u", uri, "-c", $"import subprocess; print(subprocess.call(['nbdinfo', '--size', '{uri}']))");
            Assert.That(inner.Expect(0).Output.Trim(), Is.EqualTo("1"), inner.ToString());
            await Peer.OutputAsync("nbdinfo", "--size", uri);
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
