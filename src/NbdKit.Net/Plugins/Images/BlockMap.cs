using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Plugins.Images;

/// <summary>
/// A disk whose blocks are where one table of an image says, with 4 bytes for each block. Safe for use by several threads.
/// </summary>
/// <param name="tables">Reads the table, which is in the image as a whole.</param>
/// <param name="table">Where it begins.</param>
/// <param name="blockSize">The size of the blocks in bytes, a power of two.</param>
internal abstract class BlockMap(TablePages tables, long table, long blockSize) : IBlockMap
{
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    public async ValueTask<BlockRun> FindAsync(long offset, long length, CancellationToken cancellationToken)
    {
        long at = table + (offset / blockSize * sizeof(uint));
        byte[] page = await tables.GetAsync(at, cancellationToken).ConfigureAwait(false);
        int index = (int)(at % tables.PageSize);
        BlockRun run = Decode(page, index, offset);
        while (run.Length < length && (index += sizeof(uint)) < tables.PageSize)
        {
            BlockRun next = Decode(page, index, offset + run.Length);
            if (!run.IsContinuedBy(next))
            {
                break;
            }
            run = run with { Length = run.Length + next.Length };
        }
        return run.Length > length ? run with { Length = length } : run;
    }

    /// <summary>Reads an entry of the table.</summary>
    protected abstract uint Read(ReadOnlySpan<byte> entry);

    /// <summary>Where a block is in the file, or null for a hole.</summary>
    protected abstract long? PlaceOf(uint entry);

    private BlockRun Decode(byte[] page, int index, long offset)
    {
        long inside = offset % blockSize;
        return PlaceOf(Read(page.AsSpan(index, sizeof(uint)))) is { } place
            ? new BlockRun(false, blockSize - inside, place + inside)
            : new BlockRun(true, blockSize - inside, 0);
    }
}
