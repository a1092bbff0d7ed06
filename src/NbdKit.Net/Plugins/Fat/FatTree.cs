using NbdKit.Native;

namespace NbdKit.Plugins.Fat;

/// <summary>Finds the files and directories below a directory, and refuses what FAT cannot hold. Links are left out.</summary>
internal sealed class FatTree
{
    private readonly int _maximumCount;
    private readonly int _maximumDepth;
    private readonly CancellationToken _cancellationToken;

    private FatTree(int maximumCount, int maximumDepth, CancellationToken cancellationToken)
    {
        _maximumCount = maximumCount;
        _maximumDepth = maximumDepth;
        _cancellationToken = cancellationToken;
    }

    /// <summary>All there is, parents before their entries, the root first.</summary>
    public List<FatNode> Nodes { get; } = [];

    /// <summary>Reads the tree. Blocks.</summary>
    /// <exception cref="NbdException">It cannot be read or held; the message names the file.</exception>
    public static FatTree Read(string path, int maximumCount, int maximumDepth, CancellationToken cancellationToken)
    {
        var tree = new FatTree(maximumCount, maximumDepth, cancellationToken);
        var root = new FatNode
        {
            Path = path,
            Name = "",
            Children = [],
            Modified = Directory.GetLastWriteTime(path),
        };
        tree.Nodes.Add(root);
        tree.Fill(root, 1);
        return tree;
    }

    private void Fill(FatNode directory, int depth)
    {
        if (depth > _maximumDepth)
        {
            throw Refusal(directory.Path, $"it is more than {_maximumDepth} directories deep");
        }
        List<FatNode> children = directory.Children!;
        var names = new HashSet<string>(StringComparer.OrdinalIgnoreCase);
        foreach (FileSystemInfo entry in Entries(directory.Path))
        {
            if (Node(entry, directory) is { } child)
            {
                if (!names.Add(child.Name))
                {
                    throw Refusal(child.Path, "there is another that has the same name but for upper and lower case");
                }
                children.Add(child);
            }
        }
        FatNames.Assign(children);
        directory.Size = FatDirectory.SizeOf(directory);
        if (directory.Size > FatDirectory.MaximumEntries * FatDirectory.EntrySize)
        {
            throw Refusal(directory.Path, "the names in it are too many, or too long, for one FAT directory");
        }
        foreach (FatNode child in children)
        {
            Nodes.Add(child);
            if (child.Children is not null)
            {
                Fill(child, depth + 1);
            }
        }
    }

    private List<FileSystemInfo> Entries(string path)
    {
        var entries = new List<FileSystemInfo>();
        try
        {
            foreach (FileSystemInfo entry in new DirectoryInfo(path).EnumerateFileSystemInfos())
            {
                _cancellationToken.ThrowIfCancellationRequested();
                entries.Add(entry);
                if (Nodes.Count + entries.Count > _maximumCount)
                {
                    throw Refusal(path, $"there are more than {_maximumCount} files and directories");
                }
            }
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            throw new NbdException(FileErrors.FromException(e, "").Error, $"floppy: cannot list {path}: {e.Message}", e);
        }
        entries.Sort((one, other) => string.CompareOrdinal(one.Name, other.Name));
        return entries;
    }

    private static FatNode? Node(FileSystemInfo entry, FatNode parent)
    {
        FileFacts facts = default;
        // All bits are set if there is no such file: it is gone, or its name is not text and so leads nowhere.
        bool isThere = (int)entry.Attributes != -1;
        if (isThere && (entry.Attributes & FileAttributes.ReparsePoint) != 0)
        {
            return null;
        }
        if (FatNames.Objection(entry.Name) is { } objection)
        {
            throw Refusal(entry.FullName, objection);
        }
        if (!isThere)
        {
            throw Refusal(entry.FullName, "it is gone");
        }
        bool isDirectory = (entry.Attributes & FileAttributes.Directory) != 0;
        if (LinuxFile.IsAvailable)
        {
            if (LinuxFile.Stat(entry.FullName, followLinks: false, out facts) is int error and not 0)
            {
                throw FileErrors.FromErrno(error, $"floppy: {entry.FullName}");
            }
            if (facts.IsDirectory != isDirectory || (!isDirectory && !facts.IsRegular))
            {
                throw Refusal(entry.FullName, "it is neither a regular file nor a directory");
            }
        }
        if (isDirectory)
        {
            return new FatNode
            {
                Path = entry.FullName,
                Name = entry.Name,
                Parent = parent,
                Children = [],
                Modified = entry.LastWriteTime,
                Facts = facts,
            };
        }
        long size = ((FileInfo)entry).Length;
        return size <= uint.MaxValue
            ? new FatNode
            {
                Path = entry.FullName,
                Name = entry.Name,
                Parent = parent,
                Size = size,
                Modified = entry.LastWriteTime,
                Facts = facts,
            }
            : throw Refusal(entry.FullName, $"it has {size} bytes, and FAT holds files below 4 GiB");
    }

    private static NbdException Refusal(string path, string reason)
        => new(NbdError.InvalidArgument, $"floppy: {path} cannot be put on the disk: {reason}");
}
