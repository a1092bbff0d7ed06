using System.Runtime.CompilerServices;
using NbdKit.Filters;
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
    private readonly InnerContext? _parent;
    private readonly ImageDisk? _parentDisk;

    /// <param name="inner">The image; closed with this.</param>
    /// <param name="file">The same, for requests of any alignment.</param>
    /// <param name="map">Where its blocks are.</param>
    /// <param name="size">The size of the disk.</param>
    /// <param name="parent">The disk that has what the image does not have, if it has one; closed with this.</param>
    public BlockMapHandle(InnerContext inner, ImageDisk file, IBlockMap map, long size, InnerContext? parent = null)
    {
        _inner = inner;
        // The layer above sees to it that no call is in flight at the end.
        inner.Next.CountsCalls = false;
        _file = file;
        _map = map;
        _size = size;
        if (parent is not null)
        {
            parent.Next.CountsCalls = false;
            _parent = parent;
            _parentDisk = new ImageDisk(parent.Next);
        }
    }

    /// <summary>What tells the disk from all others, if the image says so.</summary>
    public Guid Id { get; init; }

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(new NbdExportInfo
        {
            Size = _size,
            BlockSize = new BlockSize(1, 65_536),
            Description = _inner.Info.Description,
            IsRotational = _inner.Info.IsRotational || _parent?.Info.IsRotational == true,
            CanCache = Support.Emulate,
            CanMultiConn = _inner.Info.CanMultiConn && _parent?.Info.CanMultiConn != false,
            CanExtents = true,
            CanReadSparse = Support.Emulate,
            IsBlocking = _inner.Info.IsBlocking || _parent?.Info.IsBlocking == true,
        });

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            BlockRun run = await _map.FindAsync(offset, buffer.Length, cancellationToken).ConfigureAwait(false);
            Memory<byte> part = buffer[..(int)run.Length];
            ImageDisk source = run.IsInParent ? _parentDisk! : _file;
            // The last block of a file may be short, and so may a parent be.
            int count = run.IsHole ? 0 : (int)Math.Clamp(source.Size - run.Place, 0, part.Length);
            part.Span[count..].Clear();
            if (count > 0)
            {
                await source.ReadAsync(part[..count], run.Place, cancellationToken).ConfigureAwait(false);
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
            if (run.IsInParent)
            {
                await ParentExtentsAsync(run, offset, flags, extents, cancellationToken).ConfigureAwait(false);
                // What the parent did not get to may be anything.
                if (extents.Covered < offset + run.Length)
                {
                    return;
                }
            }
            else
            {
                extents.Add(offset, run.Length, run.IsHole ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data);
            }
            offset += run.Length;
            length -= run.Length;
        }
    }

    public async ValueTask FinalizeAsync(CancellationToken quick)
    {
        await _inner.FinalizeAsync(quick).ConfigureAwait(false);
        if (_parent is not null)
        {
            await _parent.FinalizeAsync(quick).ConfigureAwait(false);
        }
    }

    public ValueTask CloseAsync() => _parent is null ? _inner.CloseAsync() : InnerContext.CloseAllAsync([_inner, _parent]);

    private async ValueTask ParentExtentsAsync(
        BlockRun run, long offset, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        long length = Math.Clamp(_parentDisk!.Size - run.Place, 0, run.Length);
        // A parent that wants whole blocks could be asked for none of them.
        if (length > 0 && _parent!.Info.CanExtents && _parent.Info.BlockSize.Minimum <= 1)
        {
            await Window.ExtentsAsync(
                _parent.Next, run.Place - offset, offset + length, offset, length, flags, extents, cancellationToken)
                .ConfigureAwait(false);
        }
        else if (length > 0)
        {
            extents.Add(offset, length, ExtentStatus.Data);
        }
        if (length < run.Length && extents.Covered == offset + length)
        {
            extents.Add(offset + length, run.Length - length, ExtentStatus.Hole | ExtentStatus.Zero);
        }
    }
}
