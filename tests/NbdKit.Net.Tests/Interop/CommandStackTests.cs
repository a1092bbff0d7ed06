using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>Filters and chains of chains together, through the command, under real clients.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class CommandStackTests
{
    private const int Size = 64 << 20;

    // Small enough that blocks are reclaimed all the time.
    private static readonly string[] Stack =
    [
        "--filter=rate", "--filter=pause", "--filter=readahead", "--filter=multi-conn", "--filter=scan", "--filter=cache",
        "--filter=openonce", "mirror", "rate=1T", "cache-max-size=8M", "cache-min-block-size=4096",
    ];

    [Test]
    public async Task A_mirror_behind_cache_and_readahead_keeps_what_nbdcopy_qemu_and_fio_write()
    {
        Peer.Require("nbdcopy", "qemu-img", "fio");
        using var folder = new ScratchDirectory();
        string one = folder.WriteHole("one", Size);
        string two = folder.WriteHole("two", Size);
        string source = folder["source"];
        await File.WriteAllBytesAsync(source, Noise(Size / 2, 4711));
        using (FileStream grown = File.OpenWrite(source))
        {
            grown.SetLength(Size);
        }
        string uri = $"nbd+unix:///?socket={folder["s"]}";
        string[] serve = ["-U", folder["s"], .. Stack, $"file={one}", $"file={two}"];

        // Each run of the command ends before the files are looked at: what was flushed is there by then, and all the rest too.
        await ServeAsync(serve, async () =>
        {
            await Peer.OutputAsync("nbdcopy", "--connections=4", "--requests=64", "--flush", source, uri);
            await Peer.OutputAsync("nbdcopy", uri, folder["copy"]);
        });
        await SameFile.CheckAsync(folder["copy"], source, "nbdcopy out");
        await SameFile.CheckAsync(one, source, "the first member");
        await SameFile.CheckAsync(two, source, "the second member");

        await ServeAsync(serve, async () =>
        {
            await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", source, uri);
            await Peer.OutputAsync("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", source, uri);
            await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "qcow2", uri, folder["q"]);
            await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "qcow2", source, folder["q"]);
            await Peer.OutputAsync(
                "fio", "--name=stack", $"--aux-path={folder.Path}", "--ioengine=nbd", $"--uri={uri}", "--rw=randrw", "--bsrange=512-128k", "--iodepth=16",
                $"--size={Size}", "--io_size=48m", "--verify=crc32c", "--randseed=42");
        });
        await SameFile.CheckAsync(two, one, "the members after fio");
    }

    [Test]
    public async Task A_cow_over_that_stack_leaves_the_mirror_alone()
    {
        Peer.Require("nbdcopy", "fio");
        using var folder = new ScratchDirectory();
        string one = folder.WriteHole("one", Size);
        string two = folder.WriteHole("two", Size);
        string uri = $"nbd+unix:///?socket={folder["s"]}";
        await ServeAsync(
            ["-U", folder["s"], "--filter=cow", .. Stack, $"file={one}", $"file={two}"],
            () => Peer.OutputAsync(
                "fio", "--name=stack", $"--aux-path={folder.Path}", "--ioengine=nbd", $"--uri={uri}", "--rw=randwrite", "--bsrange=512-128k", "--iodepth=16",
                $"--size={Size}", "--io_size=32m", "--verify=crc32c", "--randseed=42"));
        Assert.That(ScratchDirectory.AllocatedBytes(one), Is.Zero);
        Assert.That(ScratchDirectory.AllocatedBytes(two), Is.Zero);
    }

    private static async Task ServeAsync(string[] arguments, Func<Task> use)
    {
        await using ToolProcess tool = ToolProcess.Start(arguments);
        await tool.LineAsync();
        await use();
        tool.Signal(15);
        (int status, _, string error) = await tool.EndAsync();
        Assert.That((status, error), Is.EqualTo((0, "")));
    }

    private static byte[] Noise(int length, int seed)
    {
        byte[] noise = new byte[length];
        new Random(seed).NextBytes(noise);
        return noise;
    }
}
