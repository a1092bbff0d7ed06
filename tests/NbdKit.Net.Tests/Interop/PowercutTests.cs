using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>The powercut plugin through the command, under real clients.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class PowercutTests
{
    private const int Size = 1 << 20;
    private const int Unflushed = 512 << 10;

    [Test]
    public async Task What_qemu_flushed_outlives_a_cut_and_what_nbdcopy_did_not_is_torn()
    {
        Peer.Require("qemu-io", "nbdcopy");
        using var folder = new ScratchDirectory();
        string disk = folder.WriteHole("disk", Size);
        string source = folder.Write("source", [.. Enumerable.Repeat((byte)0x33, Unflushed)]);
        string uri = $"nbd+unix:///?socket={folder["s"]}";
        await using ToolProcess tool = ToolProcess.Start(
            "-U", folder["s"], "powercut", disk, $"cutfile={folder["cut"]}", "seed=7", "maxpending=700K");
        await tool.LineAsync();
        await Peer.OutputAsync(
            "qemu-io", "-f", "raw", "-c", $"write -P 0x11 {Unflushed} 256k", "-c", "flush",
            "-c", $"write -f -P 0x22 {Unflushed + 1536} 512", uri);
        await Peer.OutputAsync("nbdcopy", source, uri);
        Assert.That((await Peer.RunAsync("nbdcopy", source, uri)).ToString(), Does.Contain("No space left on device"));
        await Peer.OutputAsync("nbdcopy", uri, folder["before"]);
        byte[] before = await File.ReadAllBytesAsync(folder["before"]);
        Assert.That(before.AsSpan(0, Unflushed).ToArray(), Is.All.EqualTo(0x33));
        folder.Write("cut", []);
        await Peer.OutputAsync("nbdcopy", uri, folder["copy"]);
        byte[] found = await File.ReadAllBytesAsync(folder["copy"]);

        Assert.That(found.AsSpan(Unflushed, 1536).ToArray(), Is.All.EqualTo(0x11));
        Assert.That(found.AsSpan(Unflushed + 1536, 512).ToArray(), Is.All.EqualTo(0x22));
        Assert.That(found.AsSpan(Unflushed + 2048, (256 << 10) - 2048).ToArray(), Is.All.EqualTo(0x11));
        Assert.That(found.AsSpan(Unflushed + (256 << 10)).ToArray(), Is.All.EqualTo(0));
        int kept = 0;
        for (int sector = 0; sector < Unflushed; sector += 512)
        {
            Assert.That(found.AsSpan(sector, 512).ToArray(), Is.All.EqualTo(0).Or.All.EqualTo(0x33), $"at {sector}");
            kept += found[sector] == 0 ? 0 : 1;
        }
        Assert.That(kept, Is.InRange(1, (Unflushed / 512) - 1), "with this seed the writes are torn");

        tool.Signal(15);
        (int status, _, string error) = await tool.EndAsync();
        Assert.That(status, Is.Zero, error);
        await SameFile.CheckAsync(disk, folder["copy"]);
    }
}
