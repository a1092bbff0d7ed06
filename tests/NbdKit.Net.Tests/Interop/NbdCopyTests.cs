using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>libnbd's nbdcopy, in both directions.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class NbdCopyTests
{
    private const int Size = (24 << 20) + 333;
    private const int Seed = 4711;

    [Test]
    public async Task What_is_copied_in_comes_out(
        [Values] SocketKind socket, [Values(1, 4)] int connections,
        [Values("--requests=64", "--requests=1", "--synchronous")] string mode)
    {
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(Size, Seed);
        Array.Clear(content, 3 << 20, 9 << 20);
        string source = folder.Write("source", content);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = Size }), socket);
        string[] options = [mode, $"--connections={connections}", "--flush"];

        await Peer.OutputAsync("nbdcopy", [.. options, source, server.Uri]);
        await Peer.OutputAsync("nbdcopy", [.. options, server.Uri, folder["copy"]]);

        await SameFile.CheckAsync(folder["copy"], source, $"seed {Seed}");
    }

    [TestCase(1)]
    [TestCase(4)]
    public async Task Large_requests_are_taken(int connections)
    {
        using var folder = new ScratchDirectory();
        string source = folder.Write("source", TestData.Random(64 << 20, Seed));
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 64 << 20 });
        // The largest that nbdcopy takes is also the largest that a server has to take.
        string[] options = ["--request-size=33554432", "--queue-size=134217728", "--requests=4", $"--connections={connections}"];

        await Peer.OutputAsync("nbdcopy", [.. options, source, server.Uri]);
        await Peer.OutputAsync("nbdcopy", [.. options, server.Uri, folder["copy"]]);

        await SameFile.CheckAsync(folder["copy"], source, $"seed {Seed}");
    }

    [Test]
    public async Task One_server_is_copied_to_another()
    {
        using var folder = new ScratchDirectory();
        string source = folder.Write("source", TestData.Random(Size, Seed));
        await using InteropServer from = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = Size }), SocketKind.Tcp);
        await using InteropServer to = await InteropServer.StartAsync(new MemoryPlugin { Size = Size });

        await Peer.OutputAsync("nbdcopy", source, from.Uri);
        await Peer.OutputAsync("nbdcopy", "--connections=2", "--requests=64", from.Uri, to.Uri);
        await Peer.OutputAsync("nbdcopy", to.Uri, folder["copy"]);

        await SameFile.CheckAsync(folder["copy"], source, $"seed {Seed}");
    }

    [Test]
    public async Task Holes_are_copied_as_holes()
    {
        using var folder = new ScratchDirectory();
        string source = folder.WriteHole("source", 1L << 34);
        await using (FileStream file = File.OpenWrite(source))
        {
            file.Position = 1L << 33;
            await file.WriteAsync(TestData.Random(4096, Seed));
        }
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = 1L << 34 });

        await Peer.OutputAsync("nbdcopy", "--destination-is-zero", source, server.Uri);
        string map = await Peer.OutputAsync("nbdinfo", "--map", server.Uri);

        Assert.That(map.Split('\n').Where(line => line.EndsWith("data", StringComparison.Ordinal)), Has.Exactly(1).Items, map);
        Assert.That(map, Does.Match($@"(?m)^ *{1L << 33} +32768 +0 +data$"));
    }

    [Test]
    public async Task A_read_only_export_is_not_written()
    {
        using var folder = new ScratchDirectory();
        string source = folder.Write("source", TestData.Random(4096, Seed));
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = 4096 }), options: new NbdServerOptions { ReadOnly = true });

        PeerResult result = await Peer.RunAsync("nbdcopy", source, server.Uri);

        Assert.That(result.Status, Is.Not.Zero, result.ToString());
        Assert.That(await Peer.OutputAsync("nbdinfo", "--size", server.Uri), Is.EqualTo("4096\n"));
    }
}
