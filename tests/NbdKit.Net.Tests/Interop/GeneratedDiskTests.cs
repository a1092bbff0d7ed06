using System.Text;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>Disks that are made from nothing, against nbdkit's own and with real clients.</summary>
[Parallelizable(ParallelScope.All)]
public sealed class GeneratedDiskTests
{
    [TestCase("random size=200001 seed=99")]
    [TestCase("sparse-random size=9999k seed=99 percent=30 runlength=32768")]
    [TestCase("sparse-random size=3000001 seed=4294967295 percent=30 runlength=100000 random-content=true")]
    public async Task A_seed_makes_the_disk_that_nbdkit_makes_of_it(string line)
    {
        Peer.Require("nbdcopy", "nbdinfo");
        string[] words = line.Split(' ');
        using var folder = new ScratchDirectory();
        await using (NbdBackend chain = Compose(words))
        await using (InteropServer server = await InteropServer.StartAsync(chain))
        {
            await Peer.OutputAsync("nbdcopy", server.Uri, folder["ours"]);
            await File.WriteAllTextAsync(folder["our map"], await Peer.OutputAsync("nbdinfo", "--map", server.Uri));
        }
        await Peer.OutputAsync("nbdkit", ["-U", "-", .. words, "--run", $"nbdcopy \"$uri\" '{folder["theirs"]}'; nbdinfo --map \"$uri\" > '{folder["map"]}'"]);
        await SameFile.CheckAsync(folder["ours"], folder["theirs"]);
        await SameFile.CheckAsync(folder["our map"], folder["map"]);
    }

    [TestCase("random", 1 << 20)]
    [TestCase("sparse-random", 1 << 28)]
    public async Task A_disk_copied_onto_itself_is_found_right(string plugin, int size)
    {
        Peer.Require("nbdcopy");
        await using NbdBackend chain = Compose([plugin, $"size={size}"]);
        await using InteropServer server = await InteropServer.StartAsync(chain);
        await Peer.OutputAsync("nbdcopy", "--flush", server.Uri, server.Uri);
    }

    [Test]
    public async Task A_client_learns_its_name_and_its_address()
    {
        Peer.Require("nbdcopy");
        await using InteropServer names = await InteropServer.StartAsync(new InfoPlugin());
        Assert.That(await ContentAsync(names.UriOf("größer")), Is.EqualTo("größer"));
        await using InteropServer local = await InteropServer.StartAsync(new InfoPlugin { Mode = InfoMode.Address });
        Assert.That(await ContentAsync(local.Uri), Is.EqualTo("unix"));
        await using InteropServer version = await InteropServer.StartAsync(new InfoPlugin { Mode = InfoMode.Version });
        Assert.That(await ContentAsync(version.Uri), Does.Match(@"^\d+\.\d+\.\d+"));
        await using InteropServer remote = await InteropServer.StartAsync(
            NbdBackend.Compose(new InfoPlugin { Mode = InfoMode.Address }), SocketKind.Tcp);
        Assert.That(await ContentAsync(remote.Uri), Does.Match(@"^127\.0\.0\.1:\d+$"));
    }

    [Test]
    public async Task A_copy_to_a_full_disk_ends_with_its_error()
    {
        Peer.Require("qemu-io");
        await using InteropServer server = await InteropServer.StartAsync(new FullPlugin { Size = 1 << 20 });
        PeerResult result = await Peer.RunAsync("qemu-io", "-f", "raw", "-c", "write 0 64k", server.Uri);
        Assert.That(result.Output + result.Errors, Does.Contain("No space left on device"));
    }

    [Test]
    public async Task Clients_take_a_disk_without_bytes_and_one_of_ones()
    {
        Peer.Require("nbdinfo", "qemu-io");
        await using InteropServer empty = await InteropServer.StartAsync(new ZeroPlugin());
        Assert.That(await Peer.OutputAsync("nbdinfo", "--size", empty.Uri), Is.EqualTo("0\n"));
        await using InteropServer ones = await InteropServer.StartAsync(new OnesPlugin { Size = 1 << 20, Byte = 0x5a });
        (await Peer.RunAsync("qemu-io", "-f", "raw", "-c", "read -P 0x5a 0 1M", ones.Uri)).Expect(0);
    }

    [Test]
    public async Task The_command_serves_inherited_descriptors()
    {
        Peer.Require("nbdcopy", "sh");
        using var folder = new ScratchDirectory();
        string source = folder.Write("source", TestData.Random(123_456, 8));
        string tool = Path.Combine(AppContext.BaseDirectory, "nbdkit-net.dll");
        // The name is gone before the command opens anything.
        await Peer.OutputAsync(
            "sh", "-c", $"exec 9<'{source}'; mv '{source}' '{folder["moved"]}'; exec dotnet exec '{tool}' -U - file fd=9 --run 'nbdcopy \"$uri\" \"{folder["one"]}\"; nbdinfo --is readonly \"$uri\"'");
        await SameFile.CheckAsync(folder["one"], folder["moved"]);
        await Peer.OutputAsync(
            "sh", "-c", $"exec dotnet exec '{tool}' -U - -r -e moved file dirfd=9 --run 'nbdcopy \"$uri\" \"{folder["two"]}\"' 9<'{folder.Path}'");
        await SameFile.CheckAsync(folder["two"], folder["moved"]);
    }

    private static NbdBackend Compose(string[] words)
        => new NbdCatalogue().Compose(words[0], [], words[1..].Select(word => word.Split('=')).Select(pair => KeyValuePair.Create(pair[0], pair[1])));

    private static async Task<string> ContentAsync(string uri)
    {
        using var folder = new ScratchDirectory();
        await Peer.OutputAsync("nbdcopy", uri, folder["content"]);
        return Encoding.UTF8.GetString(await File.ReadAllBytesAsync(folder["content"]));
    }
}
