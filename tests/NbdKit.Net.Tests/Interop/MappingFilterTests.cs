using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>Filters that change bytes, their places or what is said of them, under real clients.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class MappingFilterTests
{
    [Test]
    public async Task Swab_turns_around_what_nbdkit_turned_around([Values("16", "32", "64")] string bits)
    {
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random((1 << 20) + 64);
        string disk = folder.Write("disk", content);
        await Peer.OutputAsync(
            "nbdkit", "-U", "-", "--filter=swab", "file", disk, $"swab-bits={bits}", "--run", $"nbdcopy \"$uri\" {folder["swapped"]}");
        await using InteropServer server = await InteropServer.StartAsync(
            new FilePlugin { Path = folder["swapped"] }, new SwabFilter { Bits = int.Parse(bits) });
        await Peer.OutputAsync("nbdcopy", server.Uri, folder["back"]);
        Assert.That(File.ReadAllBytes(folder["swapped"]).AsSpan().SequenceEqual(content), Is.False);
        Assert.That(File.ReadAllBytes(folder["back"]).AsSpan().SequenceEqual(content));
    }

    [Test]
    public async Task A_copy_is_confirmed_by_checkwrite_and_a_wrong_one_is_not()
    {
        using var folder = new ScratchDirectory();
        byte[] content = TestData.Random(3 << 20);
        content.AsSpan(1 << 20, 1 << 20).Clear();
        string right = folder.Write("right", content);
        content[2_500_000] ^= 1;
        string wrong = folder.Write("wrong", content);
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new FilePlugin { Path = right }, new CheckwriteFilter()), lenient: true);
        await Peer.OutputAsync("nbdcopy", right, server.Uri);
        await Peer.OutputAsync("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", right, server.Uri);
        Assert.That((await Peer.RunAsync("nbdcopy", wrong, server.Uri)).Status, Is.Not.Zero);
        Assert.That(
            (await Peer.RunAsync("qemu-img", "convert", "-n", "-f", "raw", "-O", "raw", wrong, server.Uri)).Status, Is.Not.Zero);
    }

    [Test]
    public async Task What_is_mapped_and_combined_with_a_key_comes_back_as_it_was()
    {
        await using InteropServer server = await InteropServer.StartAsync(
            new MemoryPlugin { Size = 4 << 20 },
            new RotationalFilter(),
            new NocacheFilter(),
            new MapFilter { Ranges = [new(0, (1 << 20) - 1, 3 << 20), new(3 << 20, (4 << 20) - 1, 0)] },
            new XorFilter { Key = new byte[] { 1, 2, 3 } });
        await Peer.OutputAsync(
            "qemu-io", "-f", "raw", server.Uri, "-c", "write -P 0x5a 500k 1M", "-c", "write -z 3M 64k", "-c", "discard 3200k 64k", "-c", "flush",
            "-c", "read -P 0x5a 500k 1M", "-c", "read -P 0 3M 64k", "-c", "read -P 0 3200k 64k");
        string info = await Peer.OutputAsync("nbdinfo", server.Uri);
        Assert.That(info, Does.Contain("is_rotational: true").And.Contain("can_cache: false"));
    }
}
