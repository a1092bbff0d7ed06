using System.Diagnostics;
using NbdKit.Faults.Hostile;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.FileSystems;

/// <summary>An export as a file, by nbdfuse, and the file system in it by a loop device.</summary>
internal sealed class FuseDisk : IAsyncDisposable
{
    private readonly ScratchDirectory _folder = new();
    private readonly Process _fuse;
    private string? _device;
    private bool _isMounted;

    private FuseDisk(string uri)
    {
        Directory.CreateDirectory(_folder["fuse"]);
        Directory.CreateDirectory(_folder["files"]);
        _fuse = Process.Start("nbdfuse", ["-P", _folder["pid"], _folder["fuse"], uri]);
    }

    /// <summary>The export.</summary>
    public string Disk => Path.Combine(_folder["fuse"], "nbd");

    /// <summary>Where the files are while the file system is mounted.</summary>
    public string Files => _folder["files"];

    /// <summary>Shows an export.</summary>
    public static async Task<FuseDisk> OpenAsync(string uri)
    {
        var disk = new FuseDisk(uri);
        var waited = Stopwatch.StartNew();
        while (!File.Exists(disk._folder["pid"]) || new FileInfo(disk._folder["pid"]).Length == 0)
        {
            if (disk._fuse.HasExited || waited.Elapsed > Peer.Deadline)
            {
                await disk.DisposeAsync();
                throw new InvalidOperationException("nbdfuse does not show the export.");
            }
            await Task.Delay(20);
        }
        return disk;
    }

    /// <summary>Runs a program of a file system on the export.</summary>
    public Task<PeerResult> RunAsync(string[] command)
        => Peer.RunAsync(command[0], [.. command[1..].Select(argument => argument == "FILE" ? Disk : argument)]);

    /// <summary>Mounts the file system in the export.</summary>
    public async Task MountAsync(FileSystem fileSystem)
    {
        _device = (await Peer.OutputAsync("losetup", "--find", "--show", Disk)).Trim();
        await Peer.OutputAsync("mount", "-t", fileSystem.Name, _device, Files);
        _isMounted = true;
    }

    /// <summary>Unmounts it; in order, or whatever becomes of what is not written yet.</summary>
    public async Task UnmountAsync(bool inOrder = true)
    {
        if (_isMounted)
        {
            PeerResult unmounted = await Peer.RunAsync("umount", Files);
            _isMounted = false;
            if (unmounted.Status != 0)
            {
                await Peer.RunAsync("umount", "--lazy", Files);
            }
            if (inOrder)
            {
                unmounted.Expect(0);
            }
        }
        if (_device is not null)
        {
            await Peer.OutputAsync("losetup", "--detach", _device);
            _device = null;
        }
    }

    public async ValueTask DisposeAsync()
    {
        await UnmountAsync(inOrder: false);
        // nbdfuse ends when nothing of it is in use any more, which the loop device may be for a moment; one whose server was killed
        // has ended before, and left a mount behind.
        await Peer.RunAsync("umount", "--lazy", _folder["fuse"]);
        await _fuse.WaitForExitAsync().WaitAsync(30 * ProcessUse.Patience);
        _fuse.Dispose();
        _folder.Dispose();
    }
}
