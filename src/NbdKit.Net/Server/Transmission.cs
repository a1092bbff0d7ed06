using Microsoft.Extensions.Logging;
using NbdKit.Buffers;
using NbdKit.Protocol;

namespace NbdKit.Server;

/// <summary>The transmission phase: one loop that receives requests, starts them, and stages the replies that are ready.</summary>
/// <remarks>
/// <para>A request takes these steps; the numbers are at the code:</para>
/// <list type="number">
/// <item>Header: <see cref="RequestHeader"/>, in place in the receive buffer.</item>
/// <item>Room: <see cref="FlowBudget"/>; without it the loop reads no further.</item>
/// <item>Refusal: <see cref="RequestValidation"/>.</item>
/// <item>Payload of a write: in place if it is there, else received into memory of its own.</item>
/// <item>Call: the top <see cref="NextContext"/>, right here if nothing blocks.</item>
/// <item>Reply: staged if the call has completed, else by <see cref="PendingRequest"/> when it does.</item>
/// <item>Sending: <see cref="ReplyWriter"/>, when the input is drained or enough is staged.</item>
/// </list>
/// </remarks>
internal sealed partial class Transmission
{
    // A client that keeps more in flight sends more at once.
    private const int SmallBatch = 2;

    private readonly Connection _connection;
    private readonly ExportSession _export;
    private readonly InputReader _input;
    private readonly ReplyWriter _replies;
    private readonly FlowBudget _budget;
    private readonly ILogger _logger;
    private readonly int _maxPayload;
    private readonly ReplyOrder? _order;
    private readonly bool _startsElsewhere;
    private readonly ReplyForm _form;
    private readonly int _requestSize;
    private readonly int _successSize;
    private readonly int _dataHeaderSize;
    private readonly bool _readsSparse;
    private int _batch;
    private RequestHeader _current;
    private RequestFault _fault;

    public Transmission(Connection connection, ExportSession export)
    {
        _connection = connection;
        _export = export;
        _input = connection.Input;
        _input.WhenIdle = connection.Replies.Rest;
        _replies = connection.Replies;
        _budget = connection.Budget;
        Payloads = connection.Server.Payloads;
        _logger = connection.Server.Logger;
        _maxPayload = connection.Server.Options.MaxPayload;
        _order = connection.Server.Backend.ThreadModel == ThreadModel.SerializeRetirement ? new ReplyOrder(Retire) : null;
        _startsElsewhere = export.Info.IsBlocking || _order is not null;
        _form = export.Replies;
        _requestSize = _form == ReplyForm.Extended ? RequestHeader.ExtendedSize : RequestHeader.Size;
        _successSize = _form == ReplyForm.Extended ? ReplyChunk.ExtendedSize : SimpleReply.Size;
        _readsSparse = _form != ReplyForm.Simple
            && export.Info.CanReadSparse switch { Support.Native => true, Support.Emulate => export.Info.CanExtents, _ => false };
        _dataHeaderSize = _form == ReplyForm.Simple ? SimpleReply.Size : ReplyChunk.DataSize(_form);
    }

    /// <summary>Where the arrays of its requests come from.</summary>
    public PayloadArrays Payloads { get; }

    private enum Step
    {
        NeedHeader,
        NeedRoom,
        NeedPayload,
        SkipPayload,
        Done,
    }

    /// <summary>Serves requests until the client leaves; returns when all of them have ended and their replies are sent.</summary>
    public async Task RunAsync()
    {
        Task sending = SendAsync();
        try
        {
            await ReceiveAsync().ConfigureAwait(false);
        }
        catch (ConnectionEndedException e) when (e.InnerException is null)
        {
            _connection.End(e.Reason, e.Message);
            await FinishWithoutClientAsync().ConfigureAwait(false);
            throw;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // The transport failed, or this server did: nobody will hear of what is in flight.
            _connection.Cut();
            throw;
        }
        finally
        {
            _budget.Settle();
            await _budget.WaitForRequestsAsync().ConfigureAwait(false);
            _replies.Close();
            await sending.ConfigureAwait(false);
        }
    }

    private async Task ReceiveAsync()
    {
        while (true)
        {
            switch (Process())
            {
                case Step.NeedHeader:
                    _replies.Flush(); // 7
                    _connection.Transport.IsClientWaiting = _batch <= SmallBatch;
                    _batch = 0;
                    if (!await _input.FillAsync(_requestSize, _connection.Receiving).ConfigureAwait(false))
                    {
                        await ClientGoneAsync().ConfigureAwait(false);
                        return;
                    }
                    break;
                case Step.NeedRoom:
                    _connection.Delayed(_budget.Obstacle(PayloadOf(_current)));
                    _replies.Flush();
                    ValueTask room = _budget.WaitAsync(PayloadOf(_current));
                    if (_connection.Receiving.IsCancellationRequested)
                    {
                        // Whoever stopped it a moment ago found nobody who waits.
                        _budget.Wake();
                    }
                    await room.ConfigureAwait(false);
                    if (_connection.Receiving.IsCancellationRequested)
                    {
                        return;
                    }
                    break;
                case Step.NeedPayload:
                    _replies.Flush();
                    await ReceivePayloadAsync().ConfigureAwait(false); // 4
                    break;
                case Step.SkipPayload:
                    await SkipPayloadAsync().ConfigureAwait(false);
                    break;
                default:
                    _connection.End(NbdDisconnectReason.ClientDone, "the client said goodbye");
                    return;
            }
        }
    }

    /// <summary>Serves what is in the receive buffer; says what stands in the way of the next request.</summary>
    private Step Process()
    {
        while (true)
        {
            _budget.Settle();
            ReadOnlyMemory<byte> buffered = _input.Buffered;
            if (buffered.Length < _requestSize)
            {
                return Step.NeedHeader;
            }
            if (!RequestHeader.TryRead(buffered.Span, _form == ReplyForm.Extended, out _current)) // 1
            {
                throw new ConnectionEndedException(
                    NbdDisconnectReason.ProtocolViolation, "the client sent something that is no request");
            }
            if (!_budget.TryAdmit(PayloadOf(_current))) // 2
            {
                return Step.NeedRoom;
            }
            if (_current.Type == CommandType.Disconnect)
            {
                return Step.Done;
            }
            _batch++;
            _fault = _connection.RefusesRequests // 3
                ? new RequestFault(NbdError.Shutdown, _connection.Refusal.Detail)
                : RequestValidation.Check(_current, _export, _maxPayload);
            if (HasPayload(_current))
            {
                if (TakePayload(buffered) is { } step)
                {
                    return step;
                }
                continue;
            }
            _input.Advance(_requestSize);
            PrefetchNext(buffered.Span[_requestSize..]);
            if (_fault.IsFault)
            {
                Refuse(_current);
            }
            else if (_current.Length == 0 && _current.Type != CommandType.Flush)
            {
                ReplyEmpty(_current);
            }
            else
            {
                Start(_current, default, null, null);
            }
        }
    }

    private void Refuse(in RequestHeader header)
    {
        if (_connection.RefusesRequests || !TryReadUpToEnd(header))
        {
            if (header.Type == CommandType.Read && header.Length > (ulong)_maxPayload)
            {
                _connection.Refused(ReachedLimits.ReadSize);
            }
            ReplyFault(header, _fault);
        }
    }

    private bool HasPayload(in RequestHeader header)
        => (_form == ReplyForm.Extended && (header.Flags & CommandFlags.PayloadLength) != 0)
            || (header.Type == CommandType.Write && (_form != ReplyForm.Extended || !_export.RequirePayloadFlag));

    /// <summary>Serves a request with a payload if that is here; else says what to do about it.</summary>
    private Step? TakePayload(ReadOnlyMemory<byte> buffered)
    {
        if (_current.Length > (ulong)_maxPayload)
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.LimitExceeded, $"the client sent a payload of {_current.Length} bytes");
        }
        int length = (int)_current.Length;
        bool isHere = buffered.Length - _requestSize >= length;
        _input.Advance(_requestSize);
        if (!isHere)
        {
            return _fault.IsFault ? Step.SkipPayload : Step.NeedPayload;
        }
        _input.Advance(length);
        _input.ExpectLargePayload = length >= LargePayload;
        PrefetchNext(buffered.Span[(_requestSize + length)..]);
        if (_fault.IsFault)
        {
            ReplyFault(_current, _fault);
        }
        else if (length == 0)
        {
            ReplyEmpty(_current);
        }
        else
        {
            StartWith(_current, buffered.Slice(_requestSize, length), _input.Slab, null);
        }
        return null;
    }

    /// <summary>
    /// Fetching the bytes of the disk from memory is a large part of a small request, and can go on while another is served.
    /// </summary>
    private void PrefetchNext(ReadOnlySpan<byte> behind)
    {
        if (behind.Length >= _requestSize)
        {
            _export.Context.Prefetch(RequestHeader.PeekOffset(behind));
        }
    }

    private ValueTask ClientGoneAsync()
    {
        _connection.End(NbdDisconnectReason.ClientGone, "the client closed the connection without a goodbye");
        return FinishWithoutClientAsync();
    }

    /// <summary>What is in flight was asked for and is finished, unless nobody is left to hear of it.</summary>
    private async ValueTask FinishWithoutClientAsync()
    {
        if (_connection.Transport.IsPeerGone())
        {
            _connection.Cut();
            return;
        }
        // A TCP socket cannot tell a client that is gone from one that only said that it will send no more.
        using ITimer grace = _connection.Server.TimeProvider.CreateTimer(
            _ => _connection.Cut(), null, _connection.Server.Options.StopTimeout, Timeout.InfiniteTimeSpan);
        await _budget.WaitForRequestsAsync().ConfigureAwait(false);
    }

    private async Task SendAsync()
    {
        try
        {
            await _replies.RunAsync(_connection.Aborted).ConfigureAwait(false);
        }
        catch (Exception e)
        {
            // The receiving loop must not wait for a client that takes nothing any more.
            Log.TransportFailed(_logger, _connection.Public.Id, e);
            _connection.Abort(NbdDisconnectReason.ConnectionLost, "the connection was lost while sending");
        }
    }

    private long PayloadOf(in RequestHeader header)
        => header.Type is CommandType.Read or CommandType.Write ? (long)Math.Min(header.Length, (ulong)_maxPayload) : 0;
}
