using System.Numerics;
using Microsoft.Extensions.Logging;
using NbdKit.Protocol;

namespace NbdKit.Server;

// The replies: "Simple reply message" and "Structured reply chunk message".
internal sealed partial class Transmission
{
    private const int MessageBytes = 256;

    private int _faulted;

    /// <summary>The header of a reply that says that all went well, before the data of a read.</summary>
    public void WriteSuccess(Span<byte> reply, in RequestHeader header)
    {
        if (header.Type == CommandType.Read && _form != ReplyForm.Simple)
        {
            ReplyChunk.WriteData(reply, _form, header, header.Offset, (uint)header.Length);
        }
        else
        {
            WriteEmpty(reply, header);
        }
    }

    /// <summary>A reply that says what went wrong, in memory of its own.</summary>
    public ReplySegment FaultReply(in RequestHeader header, RequestFault fault)
    {
        uint error = ErrorMapping.ToWire(fault.Error, header);
        if (_form == ReplyForm.Simple)
        {
            ReplySegment simple = _replies.ReserveShared(SimpleReply.Size, out Memory<byte> memory);
            SimpleReply.Write(memory.Span, error, header.Cookie);
            return simple;
        }
        byte[] message = WireString.EncodeMessage(fault.Message, MessageBytes);
        ReplySegment chunk = _replies.ReserveShared(
            ReplyChunk.ErrorSize(_form, message.Length, hasOffset: false), out Memory<byte> bytes);
        ReplyChunk.WriteError(bytes.Span, _form, header, error, message);
        return chunk;
    }

    /// <summary>
    /// Reports the failure of a request that ended elsewhere. Never throws: that would be the end of the process. If there is not even
    /// memory for the reply, the connection ends.
    /// </summary>
    public ReplySegment FailureReply(in RequestHeader header, Exception failure)
    {
        try
        {
            return FaultReply(header, Report(header, failure));
        }
        catch (Exception e)
        {
            _connection.Abort(NbdDisconnectReason.Faulted, "a failure could not be reported: " + LogText.Message(e));
            return default;
        }
    }

    /// <summary>Logs the failure of a request, and says what the client is told of it.</summary>
    public RequestFault Report(in RequestHeader header, Exception exception)
    {
        RequestFault fault = ErrorMapping.ForException(exception, _connection.Aborted);
        if (ErrorMapping.IsExpected(exception, _connection.Aborted))
        {
            if (_logger.IsEnabled(LogLevel.Trace))
            {
                Log.RequestFailed(
                    _logger, _connection.Public.Id, header.Type.ToString(), header.Offset, header.Length, fault.Error,
                    LogText.Clean(fault.Message));
            }
        }
        else
        {
            // With each doubling, so that who runs into a defect again and again fills no log.
            int count = Interlocked.Increment(ref _faulted);
            if (BitOperations.IsPow2(count))
            {
                Log.RequestFaulted(
                    _logger, _connection.Public.Id, header.Type.ToString(), header.Offset, header.Length, count,
                    LogText.Details(exception), LogText.IfClean(exception));
            }
        }
        return fault;
    }

    /// <summary>A request has ended elsewhere: its reply goes out, in its turn if there is an order.</summary>
    public void Finish(PendingRequest pending, ReplySegment reply)
    {
        if (_order is not null)
        {
            _order.Finish(pending, reply);
        }
        else
        {
            Retire(pending, reply);
        }
    }

    private void Retire(PendingRequest pending, ReplySegment reply)
    {
        int held = pending.HeldBytes;
        _connection.Server.PendingRequests.Return(pending);
        _replies.Post(reply, held);
        _budget.EndRequest();
        _connection.LeaveIfIdle();
    }

    private void ReplyFault(in RequestHeader header, RequestFault fault)
        => ReplyAtOnce(header, FaultReply(header, fault));

    /// <summary>The reply to a request of no bytes, which no layer sees.</summary>
    private void ReplyEmpty(in RequestHeader header)
    {
        bool isChunk = _form == ReplyForm.Structured && header.Type == CommandType.Read;
        ReplySegment reply = _replies.ReserveShared(isChunk ? ReplyChunk.Size : _successSize, out Memory<byte> memory);
        if (isChunk)
        {
            ReplyChunk.Write(memory.Span, _form, ChunkType.None, header, 0);
        }
        else
        {
            WriteEmpty(memory.Span, header);
        }
        ReplyAtOnce(header, reply);
    }

    // A structured session may answer what has no payload with simple replies, which are shorter.
    private void WriteEmpty(Span<byte> reply, in RequestHeader header)
    {
        if (_form == ReplyForm.Extended)
        {
            ReplyChunk.Write(reply, _form, ChunkType.None, header, 0);
        }
        else
        {
            SimpleReply.Write(reply, 0, header.Cookie);
        }
    }

    /// <summary>A reply without a call: at once, or in its turn if there is an order.</summary>
    private void ReplyAtOnce(in RequestHeader header, ReplySegment reply)
    {
        if (_order is null)
        {
            _replies.Queue(reply);
            return;
        }
        PendingRequest pending = Begin(header, default, null, null, heldBytes: 0);
        _order.Add(pending);
        _order.Finish(pending, reply);
    }
}
