using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>The verb <c>copy</c> beside nbdcopy, and with the servers of others.</summary>
[Parallelizable(ParallelScope.All)]
[FixtureLifeCycle(LifeCycle.InstancePerTestCase)]
public sealed class CopyVerbTests : IDisposable
{
    private const int Seed = 77;

    /// <summary>A whole number of sectors, as QEMU has it.</summary>
    private const int Size = (24 << 20) + (5 * 512);

    private static readonly string Tool = $"dotnet exec {Path.Combine(AppContext.BaseDirectory, "nbdkit-net.dll")}";

    private readonly ScratchDirectory _folder = new();

    public void Dispose() => _folder.Dispose();

    [Test]
    public async Task A_file_becomes_the_same_file_as_with_nbdcopy()
    {
        string source = Source();
        await Peer.OutputAsync("nbdcopy", source, _folder["theirs"]);
        await ShellAsync($"{Tool} copy {source} {_folder["ours"]}");

        await SameFile.CheckAsync(_folder["ours"], _folder["theirs"], $"seed {Seed}");
        Assert.That(
            ScratchDirectory.AllocatedBytes(_folder["ours"]),
            Is.LessThanOrEqualTo(ScratchDirectory.AllocatedBytes(_folder["theirs"]) + (64 << 10)));
    }

    [Test]
    public async Task A_chain_is_what_nbdkit_serves_of_the_same_name()
    {
        Peer.Require("nbdkit");
        await Peer.OutputAsync("nbdcopy", "--", "[", "nbdkit", "--exit-with-parent", "pattern", "10M", "]", _folder["theirs"]);
        await ShellAsync($"{Tool} copy [ pattern 10M ] {_folder["ours"]}");
        await SameFile.CheckAsync(_folder["ours"], _folder["theirs"]);
    }

    [Test]
    public async Task A_pipe_goes_in_and_out()
    {
        string source = Source();
        await ShellAsync($"cat {source} | {Tool} copy - {_folder["in"]} && {Tool} copy {_folder["in"]} - | cmp - {source}");
    }

    [TestCase("memory 25M")]
    [TestCase("--filter=nozero memory 25M")]
    [TestCase("--filter=multi-conn memory 25M multi-conn-mode=disable")]
    [TestCase("--filter=blocksize-policy memory 25M blocksize-minimum=4096 blocksize-preferred=4096 blocksize-maximum=64K blocksize-error-policy=error")]
    [TestCase("--filter=delay memory 25M delay-read=1ms delay-write=1ms")]
    [TestCase("--no-sr memory 25M")]
    public async Task What_goes_to_nbdkit_comes_back(string chain)
    {
        Peer.Require("nbdkit");
        string source = Source();
        string command = string.Join(
            " && ",
            $"{Tool} copy --verify --destination-is-zero {source} $uri",
            $"nbdcopy --request-size=65536 $uri {_folder["theirs"]}",
            $"{Tool} copy $uri {_folder["ours"]}");
        await Peer.OutputAsync("nbdkit", ["--exit-with-parent", "-U", "-", .. chain.Split(' '), "--run", command]);

        await ShellAsync($"truncate -s {Size} {_folder["ours"]} {_folder["theirs"]}");
        await SameFile.CheckAsync(_folder["theirs"], source, $"seed {Seed}");
        await SameFile.CheckAsync(_folder["ours"], source, $"seed {Seed}");
    }

    [TestCase("raw")]
    [TestCase("qcow2")]
    public async Task What_goes_to_qemu_nbd_comes_back(string format)
    {
        Peer.Require("qemu-nbd", "qemu-img");
        string source = Source();
        string disk = _folder["disk"];
        string socket = _folder["socket"];
        await Peer.OutputAsync("qemu-img", "create", "-q", "-f", format, disk, $"{Size}");
        await ShellAsync(
            $"qemu-nbd --fork --persistent --shared=8 --pid-file={_folder["pid"]} -f {format} -k {socket} {disk} && "
            + $"{{ {Tool} copy --verify {source} 'nbd+unix:///?socket={socket}' && "
            + $"{Tool} copy 'nbd+unix:///?socket={socket}' {_folder["ours"]}; s=$?; kill $(cat {_folder["pid"]}); exit $s; }}");

        Assert.That(
            await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", format, source, disk), Does.Contain("identical"));
        await SameFile.CheckAsync(_folder["ours"], source, $"seed {Seed}");
    }

    [Test]
    public async Task An_error_of_a_server_ends_the_copy_with_its_offset()
    {
        Peer.Require("nbdkit");
        PeerResult result = await Peer.RunAsync(
            "nbdkit", "--exit-with-parent", "-U", "-", "--filter=error", "pattern", "25M", "error-pread-rate=100%",
            "--run", $"{Tool} copy $uri {_folder["ours"]}");
        Assert.That(result.Status, Is.EqualTo(1), result.ToString());
        Assert.That(result.Errors, Does.Contain("reading the source failed at offset"));
    }

    [Test]
    public async Task A_server_of_ours_is_measured_and_copied()
    {
        string source = Source();
        await using InteropServer server = await InteropServer.StartAsync(new MemoryPlugin { Size = Size });
        await ShellAsync($"{Tool} copy {source} '{server.Uri}' && {Tool} copy '{server.Uri}' - | cmp - {source}");
        PeerResult report = await ShellAsync($"{Tool} bench -t 100ms -C 2 '{server.Uri}'");
        Assert.That(report.Output, Does.Match(@"requests/s +[1-9]"));
    }

    private static async Task<PeerResult> ShellAsync(string command)
        => (await Peer.RunAsync("bash", "-c", "set -o pipefail; " + command)).Expect(0);

    private string Source()
        => _folder.Write("source", SparseData.Random(Size, new Random(Seed), 2 << 20));
}
