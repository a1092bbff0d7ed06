using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>nbdkit's own nbd plugin is a client of ours, and serves what it sees to programs of its own.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class NbdkitTests
{
    private const int Seed = 31;
    private const int Size = (16 << 20) + 511;

    [Test]
    public async Task A_disk_is_copied_through_nbdkit(
        [Values] SocketKind socket, [Values("shared=false", "shared=true")] string shared)
    {
        Peer.Require("nbdcopy");
        using var folder = new ScratchDirectory();
        string source = folder.Write("source", TestData.Random(Size, Seed));
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = Size }), socket);

        await RunAsync(server, shared, $"nbdcopy --connections=4 --requests=64 --flush {source} \"$uri\"");
        await RunAsync(server, shared, $"nbdcopy --connections=4 --requests=64 \"$uri\" {folder["copy"]}");

        await SameFile.CheckAsync(folder["copy"], source, $"seed {Seed}");
    }

    [Test]
    public async Task What_an_export_can_do_goes_through_nbdkit()
    {
        Peer.Require("nbdinfo");
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = Size });
        await Peer.OutputAsync("qemu-io", "-f", "raw", "-c", "write 1M 1M", server.Uri);

        string direct = await Peer.OutputAsync("nbdinfo", "--map", server.Uri);
        string through = await RunAsync(server, "retry=0", "nbdinfo --map \"$uri\"");

        Assert.That(through, Is.EqualTo(direct));
    }

    [Test]
    public async Task Export_names_go_through_nbdkit()
    {
        Peer.Require("nbdinfo");
        await using InteropServer server = await InteropServer.StartAsync(new ExportsPlugin());

        string size = await RunAsync(server, "export=größer", "nbdinfo --size \"$uri\"");

        Assert.That(size, Is.EqualTo($"{ExportsPlugin.Sizes["größer"]}\n"));
    }

    private static Task<string> RunAsync(InteropServer server, string parameter, string command)
    {
        string[] where = server.Server.Uris[0].Scheme == "nbd"
            ? ["hostname=127.0.0.1", $"port={server.Port}"]
            : [$"socket={server.SocketPath}"];
        return Peer.OutputAsync("nbdkit", ["--exit-with-parent", "-U", "-", "nbd", .. where, parameter, "--run", command]);
    }
}
