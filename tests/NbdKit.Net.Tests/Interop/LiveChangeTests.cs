using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>fio writes and verifies while what is below changes.</summary>
[Parallelizable(ParallelScope.Self)]
public sealed class LiveChangeTests
{
    private const int Size = 16 << 20;

    [Test]
    public async Task Nothing_is_lost_while_chains_are_replaced()
    {
        // Every view is a chain of its own; the disk below stays.
        NbdBackend disk = NbdBackend.Compose(new MemoryPlugin { Size = Size });
        await disk.StartAsync();
        NbdBackend View() => NbdBackend.Compose(new ConcatPlugin { Chains = [disk] });
        var live = new SwitchPlugin { Chain = View() };
        await using InteropServer server = await InteropServer.StartAsync(live);
        Task fio = VerifyAsync(server);
        int replaced = 0;
        while (!fio.IsCompleted)
        {
            await live.ReplaceAsync(View());
            replaced++;
            await Task.WhenAny(fio, Task.Delay(1));
        }
        await fio;
        Assert.That(replaced, Is.GreaterThan(10));
        await disk.DisposeAsync();
    }

    [Test]
    public async Task Nothing_is_lost_while_members_of_a_mirror_come_and_go()
    {
        NbdBackend Member() => NbdBackend.Compose(new MemoryPlugin { Size = Size });
        var mirror = new MirrorPlugin { Chains = [Member()] };
        await using InteropServer server = await InteropServer.StartAsync(mirror);
        Task fio = VerifyAsync(server);
        int added = 0;
        while (!fio.IsCompleted)
        {
            await (await mirror.AddAsync(Member())).InSync;
            await mirror.RemoveAsync(mirror.Members[0]);
            added++;
        }
        await fio;
        Assert.That(added, Is.GreaterThan(1));
    }

    private static async Task VerifyAsync(InteropServer server)
    {
        using var folder = new ScratchDirectory();
        string printed = await Peer.OutputAsync(
            "fio",
            [
                "--name=verify", $"--aux-path={folder.Path}", "--ioengine=nbd", $"--uri={server.Uri}", "--rw=randrw",
                "--iodepth=16", "--numjobs=2", $"--size={Size / 2}", $"--offset_increment={Size / 2}", "--bsrange=512-64k",
                "--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--randseed=42", "--fsync=100",
            ]);
        Assert.That(printed, Does.Match("(?s)(err= 0.*){2}"));
    }
}
