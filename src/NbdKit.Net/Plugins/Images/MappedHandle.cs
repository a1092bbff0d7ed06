using System.Runtime.CompilerServices;
using NbdKit.Filters;
using NbdKit.Layers;
using NbdKit.Plugins.Members;

namespace NbdKit.Plugins.Images;

/// <summary>One context of a disk in an image format, read-only.</summary>
internal sealed class MappedHandle : IChainHandle
{
    // However small the pieces are, one answer takes no longer than this many steps.
    private const int MostPieces = 65_536;

    private readonly MappedImage _image;
    private readonly IReadOnlyList<InnerContext> _contexts;
    private readonly NbdExportInfo _info;

    /// <param name="image">The disk.</param>
    /// <param name="contexts">The chains that it is in, which are closed with this; at least one.</param>
    public MappedHandle(MappedImage image, IReadOnlyList<InnerContext> contexts)
    {
        _image = image;
        _contexts = contexts;
        NbdExportInfo info = CombinedInfo.Of([.. contexts.Select(context => context.Info)], image.Size);
        _info = info with
        {
            CanWrite = false,
            CanFlush = false,
            CanTrim = false,
            CanZero = Support.None,
            CanFastZero = false,
            CanFua = Support.None,
            CanCache = info.CanCache == Support.None ? Support.None : Support.Emulate,
            CanExtents = true,
            CanReadSparse = Support.Native,
            MetaContexts = [ExtentList.BaseAllocation],
            WideMetaContexts = [],
            IsBlocking = info.IsBlocking || image.IsPacked,
        };
        foreach (InnerContext context in contexts)
        {
            // The layer above sees to it that no call is in flight at the end.
            context.Next.CountsCalls = false;
        }
    }

    /// <summary>The disk.</summary>
    public MappedImage Image => _image;

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(_info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => TryLocate(offset, buffer.Length, out MappedPiece piece, out _)
            && piece.Kind is MappedPieceKind.Data or MappedPieceKind.Nested && buffer.Length <= piece.Length
            ? piece.Source!.ReadAsync(buffer, piece.Position, cancellationToken)
            : ReadPiecesAsync(buffer, offset, null, cancellationToken);

    public ValueTask ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => TryLocate(offset, buffer.Length, out MappedPiece piece, out _)
            && piece.Kind == MappedPieceKind.Data && buffer.Length <= piece.Length
            ? piece.Source!.ReadAsync(buffer, piece.Position, cancellationToken)
            : ReadPiecesAsync(buffer, offset, extents, cancellationToken);

    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        bool one = (flags & RequestFlags.RequestOne) != 0;
        long end = offset + length;
        for (int i = 0; offset < end && i < MostPieces && !extents.IsFull && !(one && extents.Count > 1); i++)
        {
            MappedPiece piece = await LocateAsync(offset, end - offset, cancellationToken).ConfigureAwait(false);
            if (piece.Kind == MappedPieceKind.Nested && piece.Source!.Info.CanExtents)
            {
                await Window.ExtentsAsync(
                    piece.Source, piece.Position - offset, offset + piece.Length, offset, piece.Length, flags, extents, cancellationToken)
                    .ConfigureAwait(false);
                // What the chain did not get to may be anything.
                if (extents.Covered < offset + piece.Length)
                {
                    return;
                }
            }
            else
            {
                extents.Add(
                    offset,
                    piece.Length,
                    piece.Kind == MappedPieceKind.Hole ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data);
            }
            offset += piece.Length;
        }
    }

    public async ValueTask FinalizeAsync(CancellationToken quick)
    {
        foreach (InnerContext context in _contexts)
        {
            await context.FinalizeAsync(quick).ConfigureAwait(false);
        }
    }

    public ValueTask CloseAsync() => InnerContext.CloseAllAsync(_contexts);

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadPiecesAsync(
        Memory<byte> buffer, long offset, ExtentList? extents, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            MappedPiece piece = await LocateAsync(offset, buffer.Length, cancellationToken).ConfigureAwait(false);
            Memory<byte> part = buffer[..(int)Math.Min(buffer.Length, piece.Length)];
            switch (piece.Kind)
            {
                case MappedPieceKind.Hole when extents is not null:
                    extents.Add(offset, part.Length, ExtentStatus.Hole | ExtentStatus.Zero);
                    break;
                case MappedPieceKind.Hole:
                    part.Span.Clear();
                    break;
                case MappedPieceKind.Packed:
                    await _image.UnpackAsync(piece, offset, part, cancellationToken).ConfigureAwait(false);
                    break;
                case MappedPieceKind.Nested when extents is not null && piece.Source!.Info.CanReadSparse != Support.None:
                    await ReadNestedAsync(piece, part, offset, extents, cancellationToken).ConfigureAwait(false);
                    break;
                default:
                    await piece.Source!.ReadAsync(part, piece.Position, cancellationToken).ConfigureAwait(false);
                    break;
            }
            offset += part.Length;
            buffer = buffer[part.Length..];
            if (extents is not null && extents.Covered < offset)
            {
                extents.Add(extents.Covered, offset - extents.Covered, ExtentStatus.Data);
            }
        }
    }

    private static async ValueTask ReadNestedAsync(
        MappedPiece piece, Memory<byte> part, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        var below = new ExtentList(piece.Position, piece.Position + part.Length, maximumCount: int.MaxValue);
        await piece.Source!.ReadSparseAsync(part, piece.Position, below, cancellationToken).ConfigureAwait(false);
        foreach (Extent extent in below)
        {
            extents.Add(extent.Offset - piece.Position + offset, extent.Length, extent.Status);
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<MappedPiece> LocateAsync(long offset, long length, CancellationToken cancellationToken)
    {
        MappedPiece piece;
        while (!TryLocate(offset, length, out piece, out MappedPage missing))
        {
            await missing.LoadAsync(cancellationToken).ConfigureAwait(false);
        }
        return piece;
    }

    /// <summary>Finds the piece at an offset, and joins what follows it up to a length.</summary>
    private bool TryLocate(long offset, long length, out MappedPiece piece, out MappedPage missing)
    {
        if (!_image.TryLocate(offset, out piece, out missing))
        {
            return false;
        }
        while (piece.Length < length
            && _image.TryLocate(offset + piece.Length, out MappedPiece next, out _) && piece.IsFollowedBy(next))
        {
            piece = piece with { Length = piece.Length + next.Length };
        }
        return true;
    }
}
