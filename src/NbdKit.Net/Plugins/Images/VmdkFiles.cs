using NbdKit.Buffers;

namespace NbdKit.Plugins.Images;

/// <summary>The files that a descriptor names, in its own directory and nowhere else.</summary>
internal static class VmdkFiles
{
    /// <summary>Makes a resolver of the names in the descriptors of a directory.</summary>
    public static Func<string, NbdBackend?> Beside(string descriptor)
    {
        string directory = Path.GetDirectoryName(Path.GetFullPath(descriptor))!;
        return name =>
        {
            // Whoever wrote the descriptor must not choose among the files of the host, nor by way of a link.
            if (name.Length == 0 || name is "." or ".." || name.AsSpan().IndexOfAny('/', '\\', '\0') >= 0)
            {
                throw new NbdException(
                    NbdError.InvalidArgument, $"the VMDK descriptor names the file '{name}', which is not one of its own directory");
            }
            string path = Path.Combine(directory, name);
            return SparseFile.IsServable(path, followLinks: false) ? NbdBackend.Compose(new FilePlugin { Path = path, FollowsPath = false }) : null;
        };
    }
}
