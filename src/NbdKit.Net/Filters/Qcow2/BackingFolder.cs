using NbdKit.Plugins;

namespace NbdKit.Filters.Qcow2;

/// <summary>Opens files by the names that images have for them, if they are in one directory or below it.</summary>
internal static class BackingFolder
{
    private const string FilePrefix = "file:";

    /// <exception cref="NbdException">The file is elsewhere, or of a format that is not known.</exception>
    public static NbdBackend Open(string directory, string name, string? format)
    {
        if (format is not ("raw" or "qcow2"))
        {
            // To guess it from the content would be to let whoever wrote to a raw disk decide what is opened.
            throw Fault.Refused(
                $"the qcow2 image names the file '{name}' {(format is null ? "without a format" : $"of the format '{format}'")}; "
                + "raw and qcow2 can be opened");
        }
        string path = name.StartsWith(FilePrefix, StringComparison.Ordinal) ? name[FilePrefix.Length..] : name;
        string root = Path.TrimEndingDirectorySeparator(Path.GetFullPath(directory));
        string? full = FileReference.HasProtocol(path) || path.Contains('\0', StringComparison.Ordinal)
            ? null
            : Path.GetFullPath(Path.Combine(root, path));
        bool isInside = full is not null
            && full.Length > root.Length
            && full.StartsWith(root, StringComparison.Ordinal)
            && (Path.EndsInDirectorySeparator(root) || full[root.Length] == Path.DirectorySeparatorChar);
        return isInside && !HasLink(root, full!)
            ? NbdBackend.Compose(new FilePlugin { Path = full, FollowsPath = false, Root = root })
            : throw Fault.Refused($"the qcow2 image names the file '{name}', which is not in the directory of backing files");
    }

    /// <summary>
    /// Whether a link is on the way from the directory to the file: it may lead anywhere. One that is put there later is noticed when
    /// the file is open, where the system can tell.
    /// </summary>
    private static bool HasLink(string root, string path)
    {
        for (string? at = path; at is not null && at.Length > root.Length; at = Path.GetDirectoryName(at))
        {
            if (new FileInfo(at).LinkTarget is not null)
            {
                return true;
            }
        }
        return false;
    }
}
