using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Interop;

/// <summary>
/// A file system is served in every way that there is, and copied out. Then its later state is copied in, and out again.
/// Not a bit may differ, neither in what is read nor in what lies below.
/// </summary>
[Parallelizable(ParallelScope.All)]
public sealed class FileSystemTests
{
    [Test]
    public async Task Memory_holds_a_file_system([Values] SocketKind socket)
    {
        await FileSystemImages.RequireAsync();
        await using InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new MemoryPlugin { Size = FileSystemImages.Size }), socket);

        await Peer.OutputAsync("nbdcopy", FileSystemImages.Before, server.Uri);

        await ReplaceAsync(server);
    }

    [Test]
    public async Task A_file_is_written_as_a_client_writes_it([Values] SocketKind socket)
    {
        await FileSystemImages.RequireAsync();
        using var folder = new ScratchDirectory();
        string disk = await FileSystemImages.CopyAsync(FileSystemImages.Before, folder["disk"]);
        await using (InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new FilePlugin { Path = disk }), socket))
        {
            await ReplaceAsync(server);
        }

        await SameFile.CheckAsync(disk, FileSystemImages.After);
        await FileSystemImages.CheckAsync(disk);
    }

    [Test]
    public async Task A_file_below_a_cow_is_not_touched([Values] SocketKind socket)
    {
        await FileSystemImages.RequireAsync();
        using var folder = new ScratchDirectory();
        string disk = await FileSystemImages.CopyAsync(FileSystemImages.Before, folder["disk"]);
        DateTime written = File.GetLastWriteTimeUtc(disk);
        await using (InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new FilePlugin { Path = disk }, new CowFilter()), socket))
        {
            await ReplaceAsync(server);
        }

        await SameFile.CheckAsync(disk, FileSystemImages.Before);
        Assert.That(File.GetLastWriteTimeUtc(disk), Is.EqualTo(written));
    }

    [Test]
    public async Task A_partition_is_written_and_nothing_beside_it([Values] SocketKind socket, [Values] bool cow)
    {
        await FileSystemImages.RequireAsync();
        using var folder = new ScratchDirectory();
        string disk = await MakePartitionedDiskAsync(folder, FileSystemImages.Before);
        string expected = cow ? folder["before"] : await MakePartitionedDiskAsync(folder, FileSystemImages.After, "expected");
        await FileSystemImages.CopyAsync(disk, folder["before"]);
        IReadOnlyList<INbdFilter> filters = cow
            ? [new PartitionFilter { Partition = 2 }, new CowFilter()]
            : [new PartitionFilter { Partition = 2 }];
        await using (InteropServer server = await InteropServer.StartAsync(
            NbdBackend.Compose(new FilePlugin { Path = disk }, filters), socket))
        {
            await ReplaceAsync(server);
        }

        await SameFile.CheckAsync(disk, expected);
        (await Peer.RunAsync("sgdisk", "--verify", disk)).Expect(0);
    }

    /// <summary>Copies the first state out and the second in and out again, and checks both; QEMU has a look, too.</summary>
    private static async Task ReplaceAsync(InteropServer server)
    {
        using var folder = new ScratchDirectory();
        string[] options = ["--connections=4", "--requests=64"];
        await Peer.OutputAsync("nbdcopy", [.. options, server.Uri, folder["before"]]);
        await SameFile.CheckAsync(folder["before"], FileSystemImages.Before);
        await FileSystemImages.CheckAsync(folder["before"]);

        await Peer.OutputAsync("nbdcopy", [.. options, "--flush", FileSystemImages.After, server.Uri]);

        await Peer.OutputAsync("qemu-img", "compare", "-f", "raw", "-F", "raw", FileSystemImages.After, server.Uri);
        await Peer.OutputAsync("nbdcopy", [.. options, server.Uri, folder["after"]]);
        await SameFile.CheckAsync(folder["after"], FileSystemImages.After);
        await FileSystemImages.CheckAsync(folder["after"]);
    }

    /// <summary>A disk with a GPT: 1 MiB of junk, the file system, and 3 MiB of junk.</summary>
    private static async Task<string> MakePartitionedDiskAsync(ScratchDirectory folder, string image, string name = "disk")
    {
        const int Sector = 512;
        const long First = 2048;
        const long Second = 4096;
        const long Third = Second + (FileSystemImages.Size / Sector);
        const long End = Third + 6144;
        Peer.Require("sgdisk");
        string disk = folder.WriteHole(name, (End + 2048) * Sector);
        await Peer.OutputAsync(
            "sgdisk",
            "--disk-guid=11111111-2222-3333-4444-555555555555",
            $"--new=1:{First}:{Second - 1}", "--partition-guid=1:11111111-2222-3333-4444-555555555501",
            $"--new=2:{Second}:{Third - 1}", "--partition-guid=2:11111111-2222-3333-4444-555555555502",
            $"--new=3:{Third}:{End - 1}", "--partition-guid=3:11111111-2222-3333-4444-555555555503",
            disk);
        await using FileStream file = File.OpenWrite(disk);
        file.Position = First * Sector;
        await file.WriteAsync(TestData.Random((int)(Second - First) * Sector, 1));
        await using (FileStream content = File.OpenRead(image))
        {
            await content.CopyToAsync(file);
        }
        await file.WriteAsync(TestData.Random((int)(End - Third) * Sector, 3));
        return disk;
    }
}
