using System.Diagnostics;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>fio writes and verifies through its nbd engine. With NBDKIT_NET_LONG=1 it does so for minutes.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class FioTests
{
    private const int Size = 64 << 20;

    // For each test.
    private static readonly TimeSpan LongRun = TimeSpan.FromMinutes(1);

    [Test]
    public async Task Memory_holds_what_was_written(
        [Values] SocketKind socket, [Values("--bs=4k", "--bsrange=512-256k")] string sizes)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = Size }), socket);

        await VerifyAsync(server, sizes);
    }

    [Test]
    public async Task A_file_holds_what_was_written()
    {
        using var folder = new ScratchDirectory();
        string disk = folder.WriteHole("disk", Size);
        await using InteropServer server = await InteropServer.StartAsync(new FilePlugin { Path = disk });

        await VerifyAsync(server, "--bsrange=512-256k");
    }

    [Test]
    public async Task A_cow_holds_what_was_written()
    {
        using var folder = new ScratchDirectory();
        string disk = folder.WriteHole("disk", Size);
        await using InteropServer server = await InteropServer.StartAsync(new FilePlugin { Path = disk }, new CowFilter());

        await VerifyAsync(server, "--bsrange=512-256k");

        Assert.That(ScratchDirectory.AllocatedBytes(disk), Is.Zero);
    }

    /// <summary>
    /// Two connections write half of the disk each, in random order and 32 requests at a time, and verify it. Each run goes
    /// over the disk once: fio does not know what it wrote earlier.
    /// </summary>
    private static async Task VerifyAsync(InteropServer server, string sizes)
    {
        using var folder = new ScratchDirectory();
        var running = Stopwatch.StartNew();
        int seed = 42;
        do
        {
            string printed = await Peer.OutputAsync(
                "fio",
                [
                    "--name=verify", $"--aux-path={folder.Path}", "--ioengine=nbd", $"--uri={server.Uri}", "--rw=randrw",
                    "--iodepth=32", "--numjobs=2", $"--size={Size / 2}", $"--offset_increment={Size / 2}",
                    "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", $"--randseed={seed++}",
                    "--fsync=100", sizes,
                ]);
            Assert.That(printed, Does.Match("(?s)(err= 0.*){2}"));
        }
        while (Peer.IsLongRun && running.Elapsed < LongRun);
    }
}
