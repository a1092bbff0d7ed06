using System.Buffers;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters;

/// <summary>
/// Compares what clients write with what is there already, and writes nothing: for making sure that a copy is one
/// (nbdkit-checkwrite-filter(1)).
/// </summary>
/// <remarks>
/// A write that differs, or a trim or zero of a range that does not read as zeroes, fails with EIO and a message that names the first
/// byte that differs. Flushes do nothing. The layers below are opened read-only. Clients are offered everything, so that they write
/// in whatever way they would.
/// </remarks>
public sealed class CheckwriteFilter : INbdFilter, INbdFilterHandle, ILendingFilter
{
    private const int Chunk = 256 << 10;

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "checkwrite", "compare what is written with what is there, and write nothing", [], _ => new CheckwriteFilter());

    /// <inheritdoc/>
    public string Name => "checkwrite";

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => next.PreconnectAsync(connection, readOnly: true, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ListExportsAsync(
        NbdBackend next, ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => next.ListExportsAsync(exports, readOnly: true, connection, cancellationToken);

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => next.DefaultExportAsync(readOnly: true, connection, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(readOnly: true, context.ExportName, cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with
        {
            CanWrite = true,
            CanFlush = true,
            CanTrim = true,
            CanZero = Support.Native,
            CanFastZero = true,
            CanFua = Support.Native,
            CanMultiConn = true,
        });

    /// <inheritdoc/>
    public async ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        byte[] there = ArrayPool<byte>.Shared.Rent(data.Length);
        try
        {
            await next.ReadAsync(there.AsMemory(0, data.Length), offset, cancellationToken).ConfigureAwait(false);
            int same = data.Span.CommonPrefixLength(there.AsSpan(0, data.Length));
            if (same < data.Length)
            {
                throw new NbdException(
                    NbdError.IoError, $"byte {offset + same} is written as {data.Span[same]:x2}, and is {there[same]:x2}");
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(there);
        }
    }

    /// <inheritdoc/>
    public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken) => default;

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => RequireZeroesAsync(next, offset, length, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => RequireZeroesAsync(next, offset, length, cancellationToken);

    bool INbdFilterHandle.KeepsNext => true;

    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => !forWrite && next.TryLend(offset, length, loan, forWrite: false);

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);

    private static async ValueTask RequireZeroesAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
    {
        long block = Math.Max(1, next.Info.BlockSize.Minimum);
        long end = offset + length;
        while (offset < end)
        {
            long to = Math.Min(end, offset + (1L << 30));
            if (next.Info.CanExtents)
            {
                var extents = new ExtentList(offset, end);
                await next.ExtentsAlignedAsync(offset, to - offset, block, extents, cancellationToken).ConfigureAwait(false);
                if (extents.Count > 0)
                {
                    to = Math.Min(end, extents[0].End);
                    if ((extents[0].Status & ExtentStatus.Zero) != 0)
                    {
                        offset = to;
                        continue;
                    }
                }
            }
            await RequireZeroesInDataAsync(next, offset, to, cancellationToken).ConfigureAwait(false);
            offset = to;
        }
    }

    private static async ValueTask RequireZeroesInDataAsync(NextContext next, long offset, long end, CancellationToken cancellationToken)
    {
        byte[] buffer = ArrayPool<byte>.Shared.Rent((int)Math.Min(Chunk, end - offset));
        try
        {
            while (offset < end)
            {
                Memory<byte> piece = buffer.AsMemory(0, (int)Math.Min(Chunk, end - offset));
                await next.ReadInPiecesAsync(piece, offset, cancellationToken).ConfigureAwait(false);
                int other = piece.Span.IndexOfAnyExcept((byte)0);
                if (other >= 0)
                {
                    throw new NbdException(
                        NbdError.IoError, $"byte {offset + other} is to be zero, and is {piece.Span[other]:x2}");
                }
                offset += piece.Length;
            }
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(buffer);
        }
    }
}
