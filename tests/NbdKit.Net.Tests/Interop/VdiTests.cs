using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>VDI images that qemu-img and qemu-io made, against what qemu-img makes of them.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class VdiTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [TestCase("static=off", 5_000_704)]
    [TestCase("static=on", 5_000_704)]
    [TestCase("static=off", 100_000_256)]
    public async Task An_image_reads_as_QEMU_reads_it(string options, long size)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string image = folder["image"];
        await Peer.OutputAsync("qemu-img", "create", "-q", "-f", "vdi", "-o", options, image, $"{size}");
        var random = new Random(1);
        string[] writes = [.. Enumerable.Range(0, 30).SelectMany(_ =>
        {
            long offset = random.NextInt64((size - 300_000) / 512) * 512;
            return new[] { "-c", $"write -P {random.Next(256)} {offset} {random.Next(1, 500) * 512}" };
        })];
        await Peer.OutputAsync("qemu-io", ["-f", "vdi", .. writes, image]);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "vdi", "-O", "raw", image, folder["raw"]);
        byte[] expected = await File.ReadAllBytesAsync(folder["raw"]);
        await using NbdBackend chain = NbdBackend.Compose(
            new VdiPlugin { Chain = NbdBackend.Compose(new FilePlugin { Path = image }) });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(expected.Length));
        Assert.That((await TestData.ReadAsync(disk, 0, expected.Length)).AsSpan().SequenceEqual(expected));
        ExtentList extents = await disk.ExtentsFullAsync(0, expected.Length, ExtentList.BaseAllocation, None);
        Assert.That(extents.Any(e => e.Status != 0), Is.EqualTo(size > 100_000_000));
        foreach (Extent hole in extents.Where(e => e.Status != 0))
        {
            Assert.That(expected.AsSpan((int)hole.Offset, (int)hole.Length).ContainsAnyExcept((byte)0), Is.False, $"{hole}");
        }
    }

    [Test]
    public async Task Clients_of_the_command_get_what_QEMU_reads()
    {
        Peer.Require("qemu-img", "nbdcopy");
        using var folder = new ScratchDirectory();
        string raw = folder.Write("raw", TestData.Random(3 << 20, 2));
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "vdi", raw, folder["image"]);
        string uri = $"nbd+unix:///?socket={folder["s"]}";
        await using ToolProcess tool = ToolProcess.Start(["-U", folder["s"], "vdi", folder["image"]]);
        await tool.LineAsync();
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "vdi", uri, folder["image"]);
        await Peer.OutputAsync("nbdcopy", uri, folder["copy"]);
        await SameFile.CheckAsync(folder["copy"], raw, "nbdcopy");
        tool.Signal(15);
        (int status, _, string error) = await tool.EndAsync();
        Assert.That((status, error), Is.EqualTo((0, "")));
    }
}
