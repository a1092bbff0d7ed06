using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Protocol;

namespace NbdKit.Server;

// Large payloads of a layer that holds its disk in memory: sent from there, and received into it.
internal sealed partial class Transmission
{
    /// <summary>Answers a read with lent memory; false if the layers lend none.</summary>
    private bool TryReadLent(in RequestHeader header)
    {
        if (Borrow(header, forWrite: false) is not { } loan)
        {
            return false;
        }
        ReplySegment reply;
        Memory<byte> memory;
        try
        {
            reply = _replies.ReserveShared(_dataHeaderSize, out memory);
        }
        catch (OutOfMemoryException)
        {
            // The read itself, which comes next, may do with what there is; if not, it fails and says so.
            _connection.Server.Loans.Return(loan);
            return false;
        }
        WriteSuccess(memory.Span, header);
        _replies.Queue(reply.With(loan));
        return true;
    }

    /// <summary>
    /// Receives the payload of a write into lent memory, with which the write is done; false if the layers lend none. If the
    /// client leaves in the middle, a part of the range has the new content: the write was never acknowledged.
    /// </summary>
    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder<>))]
    private async ValueTask<bool> TryWriteLentAsync(RequestHeader header)
    {
        if (_startsElsewhere || (header.Flags & ~CommandFlags.PayloadLength) != 0 || Borrow(header, forWrite: true) is not { } loan)
        {
            return false;
        }
        // It holds nothing of the server's, however long the client takes.
        _budget.Settle();
        try
        {
            await _input.ReadExactlyAsync(loan, _connection.Receiving).ConfigureAwait(false);
        }
        finally
        {
            _connection.Server.Loans.Return(loan);
        }
        WriteSuccess(_replies.Reserve(_successSize).Span, header);
        _replies.Commit(_successSize);
        return true;
    }

    private Loan? Borrow(in RequestHeader header, bool forWrite)
    {
        Loan loan = _connection.Server.Loans.Get();
        loan.TakesFile = !forWrite && _connection.Transport.TakesFiles;
        bool lent = false;
        try
        {
            lent = _export.Context.TryLend((long)header.Offset, (int)header.Length, loan, forWrite)
                && loan.Length == (int)header.Length;
            return lent ? loan : null;
        }
        catch (Exception)
        {
            // The request itself, which comes next, meets the same failure and reports it.
            return null;
        }
        finally
        {
            if (!lent)
            {
                _connection.Server.Loans.Return(loan);
            }
        }
    }
}
