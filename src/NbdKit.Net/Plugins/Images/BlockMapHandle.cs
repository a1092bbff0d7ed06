using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Plugins.Images;

/// <summary>One context of a disk that an image holds, read-only.</summary>
internal sealed class BlockMapHandle : IChainHandle
{
    // However many blocks a disk has, one answer takes no longer than this many steps.
    private const int MostSteps = 4096;

    private readonly InnerContext _inner;
    private readonly ImageDisk _file;
    private readonly IBlockMap _map;
    private readonly long _size;

    /// <param name="inner">The image; closed with this.</param>
    /// <param name="file">The same, for requests of any alignment.</param>
    /// <param name="map">Where its blocks are.</param>
    /// <param name="size">The size of the disk.</param>
    public BlockMapHandle(InnerContext inner, ImageDisk file, IBlockMap map, long size)
    {
        _inner = inner;
        // The layer above sees to it that no call is in flight at the end.
        inner.Next.CountsCalls = false;
        _file = file;
        _map = map;
        _size = size;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(new NbdExportInfo
        {
            Size = _size,
            BlockSize = new BlockSize(1, 65_536),
            Description = _inner.Info.Description,
            IsRotational = _inner.Info.IsRotational,
            CanCache = Support.Emulate,
            CanMultiConn = _inner.Info.CanMultiConn,
            CanExtents = true,
            CanReadSparse = Support.Emulate,
            IsBlocking = _inner.Info.IsBlocking,
        });

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            BlockRun run = await _map.FindAsync(offset, buffer.Length, cancellationToken).ConfigureAwait(false);
            Memory<byte> part = buffer[..(int)run.Length];
            // The last block of a file may be short.
            int count = run.IsHole ? 0 : (int)Math.Clamp(_file.Size - run.Place, 0, part.Length);
            part.Span[count..].Clear();
            if (count > 0)
            {
                await _file.ReadAsync(part[..count], run.Place, cancellationToken).ConfigureAwait(false);
            }
            buffer = buffer[part.Length..];
            offset += part.Length;
        }
    }

    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        bool one = (flags & RequestFlags.RequestOne) != 0;
        for (int steps = 0; length > 0 && !extents.IsFull && !(one && extents.Count > 1) && steps < MostSteps; steps++)
        {
            BlockRun run = await _map.FindAsync(offset, length, cancellationToken).ConfigureAwait(false);
            extents.Add(offset, run.Length, run.IsHole ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data);
            offset += run.Length;
            length -= run.Length;
        }
    }

    public ValueTask FinalizeAsync(CancellationToken quick) => _inner.FinalizeAsync(quick);

    public ValueTask CloseAsync() => _inner.CloseAsync();
}
