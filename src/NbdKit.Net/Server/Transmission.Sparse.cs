using System.Runtime.CompilerServices;
using NbdKit.Protocol;

namespace NbdKit.Server;

// Reads that are answered in several chunks: holes apart from data, and what lies beyond the end of the export as an error.
internal sealed partial class Transmission
{
    // Asking for holes costs more than sending a few zeroes.
    private const int SparseRead = 16 << 10;

    // A reply of more chunks than this would be slower than zeroes; what follows is sent as data.
    public const int MostExtents = 1024;

    // The receiving loop's own.
    private ExtentList _probe = NewProbe();
    private SparsePlan _plan = new();

    public static ExtentList NewProbe() => new(0, 1, maximumCount: MostExtents);

    /// <summary>Whether holes may be told in the reply to a read.</summary>
    private bool IsSparse(in RequestHeader header)
        => _readsSparse
            && header.Type == CommandType.Read
            && header.Length >= SparseRead
            && (header.Flags & CommandFlags.DontFragment) == 0;

    /// <summary>How much of a read lies inside the export.</summary>
    private long ReadableLength(in RequestHeader header)
        => Math.Min((long)header.Length, _export.Info.Size - (long)header.Offset);

    /// <summary>Whether the reply to a read is put together by <see cref="ReadInChunksAsync"/>.</summary>
    public bool IsChunked(in RequestHeader header)
        => IsSparse(header) || (header.Type == CommandType.Read && ReadableLength(header) < (long)header.Length);

    /// <summary>
    /// Answers a read that has holes, if that is known at once. If it has none, it is a read like any other.
    /// </summary>
    private bool TryReadSparse(in RequestHeader header)
    {
        if (_export.Info.CanReadSparse != Support.Emulate)
        {
            StartChunked(header);
            return true;
        }
        long offset = (long)header.Offset;
        long length = (long)header.Length;
        _probe.Reset(offset, offset + length);
        ValueTask asking;
        bool isKnown;
        try
        {
            asking = _export.Context.ExtentsAsync(offset, length, RequestFlags.None, _probe, _connection.Aborted);
            isKnown = asking.IsCompleted;
            if (isKnown)
            {
                asking.GetAwaiter().GetResult();
            }
        }
        catch (Exception)
        {
            // Who does not get to know what is a hole reads all of it, and reports what goes wrong then.
            return false;
        }
        if (!isKnown)
        {
            StartChunked(header, asking);
            return true;
        }
        _plan.Build(offset, length, _probe, _export.Info.BlockSize.Minimum);
        if (_plan.Holes == 0)
        {
            return false;
        }
        if (_plan.DataBytes == 0)
        {
            int size = ReplyChunk.HoleSize(_form);
            ReplyChunk.WriteHole(_replies.Reserve(size).Span, _form, header, header.Offset, (uint)length, done: true);
            _replies.Commit(size);
            return true;
        }
        StartChunked(header, isPlanned: true);
        return true;
    }

    /// <summary>A read that goes beyond the end of the export gets the part that there is, if it is right otherwise.</summary>
    private bool TryReadUpToEnd(in RequestHeader header)
    {
        ulong size = (ulong)_export.Info.Size;
        if (header.Type != CommandType.Read
            || _form == ReplyForm.Simple
            || header.Offset >= size
            || header.Length <= size - header.Offset
            || header.Length > (ulong)_maxPayload
            || RequestValidation.Check(header with { Length = size - header.Offset }, _export, _maxPayload).IsFault)
        {
            return false;
        }
        StartElsewhere(header, default, null, null);
        return true;
    }

    private void StartChunked(in RequestHeader header, ValueTask? asking = null, bool isPlanned = false)
    {
        PendingRequest pending = Begin(header, default, null, null, (int)PayloadOf(header));
        // What is known goes with the request; the loop gets others.
        if (isPlanned)
        {
            pending.Swap(ref _plan);
        }
        else if (asking is not null)
        {
            pending.Swap(ref _probe);
            pending.Asking = asking;
        }
        pending.Execute();
    }

    /// <summary>Reads what is data, and builds the reply.</summary>
    /// <param name="header">The request.</param>
    /// <param name="pending">Has the plan, or a list for the extents.</param>
    /// <param name="isPlanned">Whether the plan is made.</param>
    /// <param name="asking">The question for extents, if it is under way; else null.</param>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask ReadInChunksAsync(RequestHeader header, PendingRequest pending, bool isPlanned, ValueTask? asking)
    {
        NextContext context = _export.Context;
        long length = ReadableLength(header);
        if (IsSparse(header) && _export.Info.CanReadSparse == Support.Native)
        {
            pending.Reply = await ReadAndCompactAsync(header, length, pending).ConfigureAwait(false);
            return;
        }
        if (!isPlanned)
        {
            await PlanAsync(header, length, pending, asking).ConfigureAwait(false);
        }
        SparsePlan plan = pending.Plan;
        byte[] rented = Payloads.Rent(SizeOf(plan, header));
        try
        {
            int at = 0;
            for (int i = 0; i < plan.Pieces.Count; i++)
            {
                Extent piece = plan.Pieces[i];
                at += WritePiece(rented.AsSpan(at), header, piece, IsLast(plan, i, header));
                if (!SparsePlan.IsHole(piece))
                {
                    await context.ReadAsync(Cleared(rented.AsMemory(at, (int)piece.Length), context), piece.Offset, _connection.Aborted)
                        .ConfigureAwait(false);
                    at += (int)piece.Length;
                }
            }
            at += WriteEnd(rented.AsSpan(at), header);
            pending.Reply = ReplySegment.Rented(rented, at);
        }
        catch
        {
            Payloads.Return(rented);
            throw;
        }
    }

    /// <summary>Reads with a layer that finds out about holes while it reads; then the data is moved together.</summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<ReplySegment> ReadAndCompactAsync(RequestHeader header, long length, PendingRequest pending)
    {
        SparsePlan plan = pending.Plan;
        long offset = (long)header.Offset;
        int start = _dataHeaderSize;
        ExtentList extents = pending.AllExtents;
        extents.Reset(offset, offset + length);
        // Every chunk header but the first lies in the room of a hole, which is longer; the end needs room of its own.
        byte[] rented = Payloads.Rent(
            Math.Max(start + (int)length, ReplyChunk.HoleSize(_form)) + EndSize(header));
        try
        {
            await _export.Context.ReadSparseAsync(
                Cleared(rented.AsMemory(start, (int)length), _export.Context), offset, extents, _connection.Aborted).ConfigureAwait(false);
            plan.Build(offset, length, extents, minimumBlock: 1);
            plan.ClearHolesInData(rented.AsSpan(start, (int)length), offset, extents);
            int at = 0;
            for (int i = 0; i < plan.Pieces.Count; i++)
            {
                Extent piece = plan.Pieces[i];
                int from = start + (int)(piece.Offset - offset);
                int headerSize = SparsePlan.IsHole(piece) ? ReplyChunk.HoleSize(_form) : _dataHeaderSize;
                if (!SparsePlan.IsHole(piece))
                {
                    rented.AsSpan(from, (int)piece.Length).CopyTo(rented.AsSpan(at + headerSize));
                }
                WritePiece(rented.AsSpan(at), header, piece, IsLast(plan, i, header));
                at += headerSize + (SparsePlan.IsHole(piece) ? 0 : (int)piece.Length);
            }
            at += WriteEnd(rented.AsSpan(at), header);
            return ReplySegment.Rented(rented, at);
        }
        catch
        {
            Payloads.Return(rented);
            throw;
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask PlanAsync(RequestHeader header, long length, PendingRequest pending, ValueTask? asking)
    {
        long offset = (long)header.Offset;
        ExtentList extents = pending.Extents;
        if (asking is null)
        {
            extents.Reset(offset, offset + length);
        }
        if (IsSparse(header))
        {
            try
            {
                await (asking ?? _export.Context.ExtentsAsync(offset, length, RequestFlags.None, extents, _connection.Aborted))
                    .ConfigureAwait(false);
            }
            catch (Exception)
            {
                // As if nothing were known: reading it all reports what is wrong.
                extents.Reset(offset, offset + length);
            }
        }
        pending.Plan.Build(offset, length, extents, _export.Info.BlockSize.Minimum);
    }

    private int SizeOf(SparsePlan plan, in RequestHeader header)
        => (plan.Holes * ReplyChunk.HoleSize(_form))
            + ((plan.Pieces.Count - plan.Holes) * _dataHeaderSize)
            + (int)plan.DataBytes
            + EndSize(header);

    private bool IsLast(SparsePlan plan, int piece, in RequestHeader header)
        => piece == plan.Pieces.Count - 1 && ReadableLength(header) == (long)header.Length;

    private int WritePiece(Span<byte> bytes, in RequestHeader header, Extent piece, bool done)
    {
        if (SparsePlan.IsHole(piece))
        {
            ReplyChunk.WriteHole(bytes, _form, header, (ulong)piece.Offset, (uint)piece.Length, done);
            return ReplyChunk.HoleSize(_form);
        }
        ReplyChunk.WriteData(bytes, _form, header, (ulong)piece.Offset, (uint)piece.Length, done);
        return _dataHeaderSize;
    }

    private static ReadOnlySpan<byte> BeyondTheEnd => "the request goes beyond the end of the export"u8;

    private int EndSize(in RequestHeader header)
        => ReadableLength(header) < (long)header.Length
            ? ReplyChunk.ErrorSize(_form, BeyondTheEnd.Length, hasOffset: true)
            : 0;

    private int WriteEnd(Span<byte> bytes, in RequestHeader header)
        => EndSize(header) == 0
            ? 0
            : ReplyChunk.WriteError(
                bytes, _form, header, (uint)NbdError.InvalidArgument, BeyondTheEnd, (ulong)_export.Info.Size);
}
