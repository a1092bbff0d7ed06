using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>fio writes and verifies through its nbd engine. With NBDKIT_NET_LONG=1 it does so for minutes.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class FioTests
{
    private const int Size = 64 << 20;

    private static readonly TimeSpan LongRun = TimeSpan.FromMinutes(2);

    [Test]
    public async Task What_was_written_is_read_with_requests_of_one_size([Values] SocketKind socket)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = Size }), socket);

        await VerifyAsync(server, "--bs=4k");
    }

    [Test]
    public async Task What_was_written_is_read_with_requests_of_all_sizes([Values] SocketKind socket)
    {
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = Size }), socket);

        await VerifyAsync(server, "--bsrange=512-256k", "--blockalign=512", "--fsync=100");
    }

    /// <summary>
    /// Two connections write half of the disk each, in random order and 32 requests at a time, and verify it. Each run goes
    /// over the disk once: fio does not know what it wrote earlier.
    /// </summary>
    internal static async Task VerifyAsync(InteropServer server, params string[] options)
    {
        using var folder = new ScratchDirectory();
        DateTime end = DateTime.UtcNow + (Peer.IsLongRun ? LongRun : TimeSpan.Zero);
        int seed = 42;
        do
        {
            string printed = await Peer.OutputAsync(
                "fio",
                [
                    "--name=verify", $"--aux-path={folder.Path}", "--ioengine=nbd", $"--uri={server.Uri}", "--rw=randrw",
                    "--iodepth=32", "--numjobs=2", $"--size={Size / 2}", $"--offset_increment={Size / 2}",
                    "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", $"--randseed={seed++}", .. options,
                ]);
            Assert.That(printed, Does.Match("(?s)(err= 0.*){2}"));
        }
        while (DateTime.UtcNow < end);
    }
}
