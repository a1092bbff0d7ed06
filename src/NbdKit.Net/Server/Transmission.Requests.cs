using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using NbdKit.Buffers;
using NbdKit.Protocol;

namespace NbdKit.Server;

// Starting requests and staging their replies, on the receiving loop.
internal sealed partial class Transmission
{
    /// <summary>Payloads from this size have memory of their own; smaller ones lie in slabs beside each other.</summary>
    private const int LargePayload = 64 << 10;

    // "Request types": FUA and the like as the layers know them.
    private static RequestFlags FlagsOf(in RequestHeader header) => header.Type switch
    {
        CommandType.WriteZeroes =>
            ((header.Flags & CommandFlags.Fua) != 0 ? RequestFlags.Fua : 0)
            | ((header.Flags & CommandFlags.NoHole) == 0 ? RequestFlags.MayTrim : 0)
            | ((header.Flags & CommandFlags.FastZero) != 0 ? RequestFlags.FastZero : 0),
        CommandType.Write or CommandType.Trim => (header.Flags & CommandFlags.Fua) != 0 ? RequestFlags.Fua : 0,
        CommandType.BlockStatus => (header.Flags & CommandFlags.RequestOne) != 0 ? RequestFlags.RequestOne : 0,
        _ => RequestFlags.None,
    };

    /// <summary>Calls the chain. Read: <paramref name="memory"/> is filled; write: it is the data.</summary>
    public ValueTask Call(in RequestHeader header, ReadOnlyMemory<byte> memory)
    {
        NextContext context = _export.Context;
        CancellationToken aborted = _connection.Aborted;
        long offset = (long)header.Offset;
        RequestFlags flags = FlagsOf(header);
        return header.Type switch
        {
            CommandType.Read => context.ReadAsync(Cleared(MemoryMarshal.AsMemory(memory), context), offset, aborted),
            CommandType.Write => context.WriteAsync(memory, offset, flags, aborted),
            CommandType.Flush => context.FlushAsync(aborted),
            CommandType.Trim => context.TrimAsync(offset, (long)header.Length, flags, aborted),
            CommandType.Cache => context.CacheAsync(offset, (long)header.Length, aborted),
            _ => context.ZeroAsync(offset, (long)header.Length, flags, aborted),
        };
    }

    // Pooled memory holds what other clients read and wrote: a layer that fills less than it should must not send that.
    private static Memory<byte> Cleared(Memory<byte> memory, NextContext context)
    {
        if (!context.FillsReads)
        {
            memory.Span.Clear();
        }
        return memory;
    }

    /// <summary>
    /// Starts a valid request. <paramref name="data"/> lies in <paramref name="slab"/> or in <paramref name="rented"/>, which
    /// becomes the request's.
    /// </summary>
    private void Start(in RequestHeader header, ReadOnlyMemory<byte> data, Slab? slab, byte[]? rented)
    {
        if (_startsElsewhere || header.Type == CommandType.BlockStatus)
        {
            StartElsewhere(header, data, slab, rented);
            return;
        }
        if (IsSparse(header) && TryReadSparse(header))
        {
            return;
        }
        if (header.Type == CommandType.Read && header.Length >= LargePayload && TryReadLent(header))
        {
            return;
        }
        int headerSize = header.Type == CommandType.Read ? _dataHeaderSize : _successSize;
        int size = headerSize + (header.Type == CommandType.Read ? (int)header.Length : 0);
        byte[]? large = null;
        ValueTask call;
        try
        {
            if (size > LargePayload)
            {
                large = Payloads.Rent(size);
            }
            Memory<byte> reply = large is null ? _replies.Reserve(size) : large.AsMemory(0, size);
            call = Call(header, header.Type == CommandType.Read ? reply[headerSize..] : data); // 5
            if (call.IsCompletedSuccessfully)
            {
                call.GetAwaiter().GetResult();
                WriteSuccess(reply.Span, header); // 6
                if (large is null)
                {
                    _replies.Commit(size);
                }
                else
                {
                    _replies.Queue(ReplySegment.Rented(large, size));
                }
                Return(rented);
                return;
            }
        }
        catch (Exception e)
        {
            Return(large);
            Return(rented);
            ReplyFault(header, Report(header, e));
            return;
        }
        PendingRequest pending = Begin(header, data, slab, rented, (int)PayloadOf(header));
        pending.Reply = large is null ? _replies.Detach(size) : ReplySegment.Rented(large, size);
        pending.Await(call);
    }

    /// <summary>Starts a request whose payload is here.</summary>
    private void StartWith(RequestHeader header, ReadOnlyMemory<byte> data, Slab? slab, byte[]? rented)
    {
        RequestFault fault = header.Type == CommandType.BlockStatus ? ReadStatusPayload(data.Span, ref header) : default;
        if (fault.IsFault)
        {
            Return(rented);
            ReplyFault(header, fault);
        }
        else
        {
            Start(header, data, slab, rented);
        }
    }

    /// <summary>Starts a request on a thread that may block, or with its place in the order of replies.</summary>
    private void StartElsewhere(in RequestHeader header, ReadOnlyMemory<byte> data, Slab? slab, byte[]? rented)
    {
        ReplySegment reply = default;
        if (header.Type != CommandType.BlockStatus && !IsChunked(header))
        {
            int size = header.Type == CommandType.Read ? _dataHeaderSize + (int)header.Length : _successSize;
            try
            {
                reply = size > LargePayload
                    ? ReplySegment.Rented(Payloads.Rent(size), size)
                    : _replies.ReserveShared(size, out _);
            }
            catch (OutOfMemoryException e)
            {
                Return(rented);
                ReplyFault(header, Report(header, e));
                return;
            }
        }
        PendingRequest pending = Begin(header, data, slab, rented, (int)PayloadOf(header));
        pending.Reply = reply;
        _order?.Add(pending);
        if (_export.Info.IsBlocking)
        {
            _connection.Server.BlockingCalls.Queue(pending);
        }
        else
        {
            pending.Execute();
        }
    }

    private PendingRequest Begin(
        in RequestHeader header, ReadOnlyMemory<byte> data, Slab? slab, byte[]? rented, int heldBytes)
    {
        PendingRequest pending = _connection.Server.PendingRequests.Get();
        _budget.BeginRequest();
        pending.Begin(this, header, data, slab, rented, heldBytes);
        _budget.Take(heldBytes);
        _budget.Settle();
        return pending;
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReceivePayloadAsync()
    {
        RequestHeader header = _current;
        int length = (int)header.Length;
        if (length < LargePayload)
        {
            await _input.FillInsideAsync(length, _connection.Receiving).ConfigureAwait(false);
            ReadOnlyMemory<byte> data = _input.Buffered[..length];
            _input.Advance(length);
            StartWith(header, data, _input.Slab, null);
            return;
        }
        _input.ExpectLargePayload = true;
        if (await TryWriteLentAsync(header).ConfigureAwait(false))
        {
            return;
        }
        byte[]? rented = null;
        try
        {
            rented = Payloads.Rent(length);
            await _input.ReadExactlyAsync(rented.AsMemory(0, length), _connection.Receiving).ConfigureAwait(false);
        }
        catch (OutOfMemoryException e) when (rented is null)
        {
            _fault = Report(header, e);
        }
        catch
        {
            Return(rented);
            throw;
        }
        if (rented is null)
        {
            await SkipPayloadAsync().ConfigureAwait(false);
            return;
        }
        StartWith(header, rented.AsMemory(0, length), null, rented);
    }

    /// <summary>Throws away the payload of a request that is refused, and refuses it.</summary>
    private async ValueTask SkipPayloadAsync()
    {
        await _input.SkipAsync((long)_current.Length, _connection.Receiving).ConfigureAwait(false);
        ReplyFault(_current, _fault);
    }

    private void Return(byte[]? rented)
    {
        if (rented is not null)
        {
            Payloads.Return(rented);
        }
    }
}
