using NbdKit.Plugins;
using NbdKit.Tests.Testing;
using NbdKit.Tests.Tool;

namespace NbdKit.Tests.Interop;

/// <summary>VHD images that qemu-img and qemu-io made, against what qemu-img makes of them.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class VhdTests
{
    private static readonly CancellationToken None = CancellationToken.None;

    [TestCase("subformat=dynamic", 5_000_704)]
    [TestCase("subformat=fixed", 5_000_704)]
    [TestCase("subformat=dynamic,force_size=on", 5_000_704)]
    [TestCase("subformat=fixed,force_size=on", 5_000_704)]
    [TestCase("subformat=dynamic", 100_000_256)]
    public async Task An_image_reads_as_QEMU_reads_it(string options, long size)
    {
        Peer.Require("qemu-img", "qemu-io");
        using var folder = new ScratchDirectory();
        string image = folder["image"];
        await Peer.OutputAsync("qemu-img", "create", "-q", "-f", "vpc", "-o", options, image, $"{size}");
        var random = new Random(1);
        string[] writes = [.. Enumerable.Range(0, 30).SelectMany(_ =>
        {
            long offset = random.NextInt64((size - 300_000) / 512) * 512;
            return new[] { "-c", $"write -P {random.Next(256)} {offset} {random.Next(1, 500) * 512}" };
        })];
        await Peer.OutputAsync("qemu-io", ["-f", "vpc", .. writes, image]);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "vpc", "-O", "raw", image, folder["raw"]);
        byte[] expected = await File.ReadAllBytesAsync(folder["raw"]);
        await using NbdBackend chain = NbdBackend.Compose(
            new VhdPlugin { Chain = NbdBackend.Compose(new FilePlugin { Path = image }) });
        await using NextContext disk = await chain.OpenAsync();
        Assert.That(disk.Info.Size, Is.EqualTo(expected.Length));
        Assert.That((await TestData.ReadAsync(disk, 0, expected.Length)).AsSpan().SequenceEqual(expected));
        ExtentList extents = await disk.ExtentsFullAsync(0, expected.Length, ExtentList.BaseAllocation, None);
        Assert.That(extents.Any(e => e.Status != 0) || size < 100_000_000);
        foreach (Extent hole in extents.Where(e => e.Status != 0))
        {
            Assert.That(expected.AsSpan((int)hole.Offset, (int)hole.Length).ContainsAnyExcept((byte)0), Is.False, $"{hole}");
        }
    }

    [Test]
    public async Task Clients_read_the_changes_to_an_image_of_QEMU()
    {
        Peer.Require("qemu-img", "qemu-io", "nbdcopy");
        const int Size = 7 << 20;
        using var folder = new ScratchDirectory();
        await Peer.OutputAsync("qemu-img", "create", "-q", "-f", "vpc", "-o", "force_size=on", folder["base"], $"{Size}");
        await Peer.OutputAsync("qemu-io", "-f", "vpc", "-c", "write -P 7 1M 600k", "-c", "write -P 9 6M 1M", folder["base"]);
        await Peer.OutputAsync("qemu-img", "convert", "-f", "vpc", "-O", "raw", folder["base"], folder["raw"]);
        byte[] expected = await File.ReadAllBytesAsync(folder["raw"]);
        byte[] parent = await File.ReadAllBytesAsync(folder["base"]);
        // 1 MiB longer than its parent; the second half of what is written begins inside a block.
        byte[] disk = TestData.Random(Size + (1 << 20), 4);
        bool[] isHere = [.. Enumerable.Range(0, disk.Length / 512).Select(i => i is (> 2100 and < 2200) or (> 13_000 and < 15_000 and not 13_500))];
        byte[] merged = [.. expected, .. new byte[1 << 20]];
        for (int i = 0; i < isHere.Length; i++)
        {
            if (isHere[i])
            {
                disk.AsSpan(i * 512, 512).CopyTo(merged.AsSpan(i * 512));
            }
        }
        string image = folder.Write(
            "difference", VhdDifference.Make(disk, 2 << 20, isHere, Guid.NewGuid(), new Guid(parent.AsSpan(68, 16), bigEndian: true), _ => false));
        await using NbdBackend chain = NbdBackend.Compose(new VhdPlugin
        {
            Chain = NbdBackend.Compose(new FilePlugin { Path = image }),
            Parent = NbdBackend.Compose(new VhdPlugin { Chain = NbdBackend.Compose(new FilePlugin { Path = folder["base"] }) }),
        });
        await using InteropServer server = await InteropServer.StartAsync(chain);
        string raw = folder.Write("merged", merged);
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", server.Uri, raw);
        await Peer.OutputAsync("nbdcopy", server.Uri, folder["copy"]);
        await SameFile.CheckAsync(folder["copy"], raw, "nbdcopy");
    }

    [Test]
    public async Task Clients_of_the_command_get_what_QEMU_reads()
    {
        Peer.Require("qemu-img", "nbdcopy");
        using var folder = new ScratchDirectory();
        string raw = folder.Write("raw", TestData.Random(3 << 20, 2));
        await Peer.OutputAsync("qemu-img", "convert", "-f", "raw", "-O", "vpc", "-o", "force_size=on", raw, folder["image"]);
        string uri = $"nbd+unix:///?socket={folder["s"]}";
        await using ToolProcess tool = ToolProcess.Start(["-U", folder["s"], "vhd", folder["image"]]);
        await tool.LineAsync();
        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "vpc", uri, folder["image"]);
        await Peer.OutputAsync("nbdcopy", uri, folder["copy"]);
        await SameFile.CheckAsync(folder["copy"], raw, "nbdcopy");
        tool.Signal(15);
        (int status, _, string error) = await tool.EndAsync();
        Assert.That((status, error), Is.EqualTo((0, "")));
    }
}
