using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Faults;

/// <summary>
/// The file plugin on a file that is on a disk that loses power: a file of FUSE whose every write and sync is a request to
/// the powercut plugin, so that what is judged are the system calls that really were made.
/// </summary>
public sealed class PowerCutFileTests
{
    [Test]
    public async Task What_was_flushed_to_a_file_outlives_a_power_cut([Values(1, 2, 3)] int seed)
    {
        Peer.Require("nbdfuse", "umount", "sh");
        if (!File.Exists("/dev/fuse"))
        {
            Assert.Ignore("This machine has no FUSE.");
        }
        var random = new Random(seed);
        var history = new PowerCutHistory(seed, PowerCutStack.Plain, PowerCutStep.Draw(
            random, PowerCutHistory.StepCount, PowerCutHistory.Contexts, PowerCutHistory.Sectors, concurrent: false), HasFaults: false);
        var run = new PowerCutRun(history, density: 3);
        using var folder = new ScratchDirectory();
        string mount = Directory.CreateDirectory(folder["mount"]).FullName;
        await using InteropServer server = await InteropServer.StartAsync(
            run.Disks[0], new PowerCutTap(PowerCutDiskKind.Full, run.PassAsync));
        Task<PeerResult> fuse = Peer.RunAsync("nbdfuse", "-P", folder["pid"], mount, server.Uri);
        await Peer.OutputAsync("sh", "-c", $"i=0; while [ ! -s '{folder["pid"]}' ] && [ $i -lt 400 ]; do sleep 0.05; i=$((i + 1)); done");
        try
        {
            Assert.That(fuse.IsCompleted, Is.False, "nbdfuse has ended");
            await run.RunOnAsync(NbdBackend.Compose(new FilePlugin { Path = Path.Combine(mount, "nbd") }));
        }
        finally
        {
            await Peer.OutputAsync("sh", "-c", $"umount '{mount}' || fusermount3 -u '{mount}' || fusermount -u '{mount}'");
            (await fuse).Expect(0);
        }
        TestContext.Out.WriteLine($"{run.States} states");
        Assert.That(run.Violation, Is.Null, $"seed {seed}\n{string.Join('\n', history.Steps)}");
        Assert.That(run.States, Is.GreaterThan(50));
    }
}
