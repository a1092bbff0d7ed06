using System.Text;

namespace NbdKit.Filters.Ext2;

/// <summary>Finds a file by its path, and follows symbolic links inside the image.</summary>
internal sealed class PathWalk
{
    // The limits of Linux, which nothing that it made exceeds.
    private const int MostLinks = 40;
    private const int LongestPath = 4096;
    private const int MostSteps = 4096;
    private const int FastLinkSize = 60;

    private readonly Volume _volume;
    private readonly DirectoryScan _scan;
    private readonly string _path;
    private readonly Stack<ReadOnlyMemory<byte>> _names = [];
    private readonly Stack<uint> _parents = [];

    private PathWalk(Volume volume, string path)
    {
        _volume = volume;
        _scan = new DirectoryScan(volume);
        _path = path;
    }

    /// <summary>Finds a regular file whose content can be read.</summary>
    /// <param name="volume">The file system.</param>
    /// <param name="path">The path, from the root directory.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async ValueTask<Inode> FindFileAsync(Volume volume, string path, CancellationToken cancellationToken)
    {
        var walk = new PathWalk(volume, path);
        Inode inode = await walk.WalkAsync(cancellationToken).ConfigureAwait(false);
        if (!inode.IsRegular)
        {
            throw walk.Refused(inode.IsDirectory ? "it is a directory" : "it is not a regular file");
        }
        walk.RequireReadable(inode, "it");
        return inode;
    }

    private async ValueTask<Inode> WalkAsync(CancellationToken cancellationToken)
    {
        byte[] path = Encoding.UTF8.GetBytes(_path);
        if (path.Length is 0 or > LongestPath)
        {
            throw Refused(path.Length == 0 ? "the name is empty" : "the path is too long");
        }
        Push(path);
        Inode current = await _volume.ReadInodeAsync(Inode.Root, cancellationToken).ConfigureAwait(false);
        int links = 0;
        for (int steps = 0; _names.TryPop(out ReadOnlyMemory<byte> name); steps++)
        {
            if (steps == MostSteps)
            {
                throw Refused("the path is too long");
            }
            if (!current.IsDirectory)
            {
                throw Refused("a part of the path is not a directory");
            }
            if (name.Span.SequenceEqual("."u8))
            {
                continue;
            }
            if (name.Span.SequenceEqual(".."u8))
            {
                uint parent = _parents.TryPop(out uint above) ? above : Inode.Root;
                current = await _volume.ReadInodeAsync(parent, cancellationToken).ConfigureAwait(false);
                continue;
            }
            RequireReadable(current, "a directory on the way");
            uint number = await _scan.FindAsync(current, name, cancellationToken).ConfigureAwait(false);
            if (number == 0)
            {
                throw Refused("there is no such file");
            }
            Inode found = await _volume.ReadInodeAsync(number, cancellationToken).ConfigureAwait(false);
            if (!found.IsSymbolicLink)
            {
                _parents.Push(current.Number);
                current = found;
                continue;
            }
            if (++links > MostLinks)
            {
                throw Refused("there are too many symbolic links");
            }
            byte[] target = await ReadLinkAsync(found, cancellationToken).ConfigureAwait(false);
            Push(target);
            if (target[0] == '/')
            {
                _parents.Clear();
                current = await _volume.ReadInodeAsync(Inode.Root, cancellationToken).ConfigureAwait(false);
            }
        }
        return current;
    }

    /// <summary>Puts the names of a path before those that are left.</summary>
    private void Push(ReadOnlyMemory<byte> path)
    {
        if (path.Span[^1] == '/')
        {
            // What is written like a directory has to be one.
            _names.Push("."u8.ToArray());
        }
        while (!path.IsEmpty)
        {
            int slash = path.Span.LastIndexOf((byte)'/');
            if (slash + 1 < path.Length)
            {
                _names.Push(path[(slash + 1)..]);
            }
            path = path[..Math.Max(slash, 0)];
        }
    }

    private async ValueTask<byte[]> ReadLinkAsync(Inode link, CancellationToken cancellationToken)
    {
        RequireReadable(link, "a symbolic link on the way");
        if (link.Size is 0 or >= LongestPath)
        {
            throw Fault.Damaged($"the symbolic link with inode {link.Number} is {link.Size} bytes long");
        }
        byte[] target;
        if (link.IsInline)
        {
            target = InlineData.ReadContent(link);
        }
        else if (link.Size < FastLinkSize)
        {
            target = link.Map[..(int)link.Size].ToArray();
        }
        else
        {
            target = await ReadSlowLinkAsync(link, cancellationToken).ConfigureAwait(false);
        }
        return !target.Contains((byte)0)
            ? target
            : throw Fault.Damaged($"the symbolic link with inode {link.Number} has a NUL in it");
    }

    private async ValueTask<byte[]> ReadSlowLinkAsync(Inode link, CancellationToken cancellationToken)
    {
        byte[] target = new byte[link.Size];
        int blockSize = _volume.Superblock.BlockSize;
        IFileMap map = _volume.MapOf(link);
        for (int at = 0; at < target.Length; at += blockSize)
        {
            BlockRun run = await map.FindAsync(at / blockSize, 1, cancellationToken).ConfigureAwait(false);
            if (!run.IsWritten)
            {
                throw Fault.Damaged($"the symbolic link with inode {link.Number} has a hole");
            }
            await _volume.Disk.ReadAsync(
                target.AsMemory(at, Math.Min(blockSize, target.Length - at)), run.Start * blockSize, cancellationToken)
                .ConfigureAwait(false);
        }
        return target;
    }

    private void RequireReadable(Inode inode, string what)
    {
        if (inode.UnreadableReason is { } reason)
        {
            throw Refused($"{what} is {reason}");
        }
    }

    private NbdException Refused(string why) => Fault.Refused($"the file '{_path}' cannot be served: {why}");
}
