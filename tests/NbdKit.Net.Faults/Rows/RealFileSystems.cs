using System.Net.Sockets;
using NbdKit.Faults.FileSystems;
using NbdKit.Faults.Hostile;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>
/// File systems of the kernel on an export, by nbdfuse and a loop device: made, filled and checked with a server that stays, and
/// recovered after the process of the server was killed while files were written.
/// </summary>
/// <remarks>
/// nbdfuse does not connect again, so that the file system loses its disk when the server is killed; it is mounted anew from the
/// server that is started after that.
/// </remarks>
internal sealed class RealFileSystems : Fault
{
    private const int Files = 600;

    public override string Id => "F19";

    public override string Title => "real file systems";

    public override async Task<string> RunAsync(FaultRun run)
    {
        await RequireAsync();
        FileSystem[] here = [.. FileSystem.All.Where(fileSystem => fileSystem.Missing is null)];
        if (here.Length == 0)
        {
            throw new FaultSkippedException(string.Join("; ", FileSystem.All.Select(each => $"{each.Name}: {each.Missing}")));
        }
        int cycles = (int)run.Size(1, 100);
        Random random = run.Random();
        int checkedFiles = 0;
        int recoveredFiles = 0;
        foreach (FileSystem fileSystem in here)
        {
            for (int cycle = 0; cycle < cycles; cycle++)
            {
                checkedFiles += await StopInOrderAsync(fileSystem, random.Next());
                recoveredFiles += await KillAsync(fileSystem, random.Next(), TimeSpan.FromMilliseconds(700 + random.Next(1500)));
            }
        }
        string said = $"{string.Join(", ", here.Select(each => each.Name))}: {cycles} cycles each; clean after every stop and kill, "
            + $"{checkedFiles} files forced to the disk checked after stops, {recoveredFiles} after kills";
        return string.Join("; ", FileSystem.All.Except(here).Select(each => $"not {each.Name}: {each.Missing}").Prepend(said));
    }

    private static async Task RequireAsync()
    {
        if (!OperatingSystem.IsLinux() || !File.Exists("/dev/fuse"))
        {
            throw new FaultSkippedException("this machine has no FUSE");
        }
        string? missing = new[] { "nbdfuse", "losetup", "mount", "umount" }.FirstOrDefault(program => !FileSystem.Has(program));
        if (missing is not null)
        {
            throw new FaultSkippedException($"{missing} is not installed");
        }
        if (!System.Environment.IsPrivilegedProcess)
        {
            throw new FaultSkippedException("mounting takes root");
        }
        using var folder = new ScratchDirectory();
        PeerResult loop = await Peer.RunAsync("losetup", "--find", "--show", folder.WriteHole("disk", 1 << 20));
        if (loop.Status != 0)
        {
            throw new FaultSkippedException($"there are no loop devices: {loop.Errors.Trim()}");
        }
        await Peer.OutputAsync("losetup", "--detach", loop.Output.Trim());
    }

    /// <summary>Our server in this process, stopped when everything is unmounted; then looked at with another one.</summary>
    private static async Task<int> StopInOrderAsync(FileSystem fileSystem, int seed)
    {
        using var folder = new ScratchDirectory();
        string file = folder.WriteHole("disk", FileSystem.DiskSize);
        FileLoad load;
        await using (NbdServer server = await StartAsync(folder["s1"], file))
        await using (FuseDisk disk = await FuseDisk.OpenAsync(UriOf(folder["s1"])))
        {
            (await disk.RunAsync(fileSystem.Make)).Expect(0);
            await disk.MountAsync(fileSystem);
            load = new FileLoad(disk.Files, seed);
            await load.RunAsync(Files);
            await disk.UnmountAsync();
        }
        await using (NbdServer server = await StartAsync(folder["s2"], file))
        await using (FuseDisk disk = await FuseDisk.OpenAsync(UriOf(folder["s2"])))
        {
            (await disk.RunAsync(fileSystem.Check)).Expect(0);
            await disk.MountAsync(fileSystem);
            load.Check(disk.Files);
            await disk.UnmountAsync();
        }
        return load.Kept;
    }

    /// <summary>A server in a process of its own, killed under load and started again.</summary>
    private static async Task<int> KillAsync(FileSystem fileSystem, int seed, TimeSpan after)
    {
        using var folder = new ScratchDirectory();
        string file = folder.WriteHole("disk", FileSystem.DiskSize);
        FileLoad load;
        await using (ServingChild server = await ServingChild.StartAsync(folder["s1"], file))
        await using (FuseDisk disk = await FuseDisk.OpenAsync(UriOf(folder["s1"])))
        {
            (await disk.RunAsync(fileSystem.Make)).Expect(0);
            await disk.MountAsync(fileSystem);
            load = new FileLoad(disk.Files, seed);
            Task writing = load.RunAsync(1_000_000);
            await Task.Delay(after);
            load.Over();
            await server.KillAsync();
            await writing.WaitAsync(Peer.Deadline);
            await disk.UnmountAsync(inOrder: false);
        }
        if (load.Kept == 0)
        {
            throw new InvalidOperationException($"No file was on the disk before the kill: this tested nothing on {fileSystem.Name}.");
        }
        await using (ServingChild server = await ServingChild.StartAsync(folder["s2"], file))
        await using (FuseDisk disk = await FuseDisk.OpenAsync(UriOf(folder["s2"])))
        {
            if (fileSystem.Recover is { } recover)
            {
                PeerResult recovered = await disk.RunAsync(recover);
                recovered.Expect(Math.Min(recovered.Status, 1));
            }
            else
            {
                await disk.MountAsync(fileSystem);
                await disk.UnmountAsync();
            }
            (await disk.RunAsync(fileSystem.Check)).Expect(0);
            await disk.MountAsync(fileSystem);
            load.Check(disk.Files);
            await disk.UnmountAsync();
            (await disk.RunAsync(fileSystem.Check)).Expect(0);
        }
        return load.Kept;
    }

    private static async Task<NbdServer> StartAsync(string socket, string file)
    {
        var server = new NbdServer(
            NbdBackend.Compose(new FilePlugin { Path = file }), new NbdServerOptions { EndPoints = [new UnixDomainSocketEndPoint(socket)] });
        await server.StartAsync();
        return server;
    }

    private static string UriOf(string socket) => $"nbd+unix:///?socket={socket}";
}
