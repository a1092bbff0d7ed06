using NbdKit.Plugins.Images;

namespace NbdKit.Plugins.Vhd;

/// <summary>A disk that is in its file as it is.</summary>
internal sealed class FixedMap : IBlockMap
{
    public ValueTask<BlockRun> FindAsync(long offset, long length, CancellationToken cancellationToken)
        => new(new BlockRun(false, length, offset));
}
