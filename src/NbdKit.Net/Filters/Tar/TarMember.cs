namespace NbdKit.Filters.Tar;

/// <summary>A file in a tar archive.</summary>
/// <param name="Name">Its path in the archive.</param>
/// <param name="Offset">Where its content begins, always at a multiple of 512.</param>
/// <param name="Size">The size of its content. The archive has all of it.</param>
/// <param name="IsSparse">Whether the content was stored without its holes, and so is not there in one piece.</param>
internal sealed record TarMember(string Name, long Offset, long Size, bool IsSparse)
{
    /// <summary>Checks that the member can be served in place.</summary>
    /// <exception cref="NbdException">It cannot; the message says why.</exception>
    public void RequireServable(NextContext archive)
    {
        if (IsSparse)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"the member '{Name}' was stored as a sparse file, which cannot be served in place; "
                + "make the archive without --sparse");
        }
        Window.RequireAligned(archive, $"the member '{Name}'", Offset);
        long block = archive.Info.BlockSize.Minimum;
        if (block > 1 && Size % block != 0)
        {
            throw new NbdException(
                NbdError.InvalidArgument,
                $"the member '{Name}' has {Size} bytes, which is not a multiple of the minimum block size of {block} bytes "
                + $"of {archive.Backend.Name}; put the blocksize filter between them");
        }
    }
}
