using System.Buffers.Binary;
using NbdKit.Buffers;
using NbdKit.Protocol;
using NbdKit.Server;
using NbdKit.Transports;

namespace NbdKit.Client;

/// <summary>
/// The receiving loop of a client: takes replies apart, and trusts nothing in them. Whatever breaks the protocol ends the
/// connection, because nobody knows what the next byte means then.
/// </summary>
internal sealed partial class ReplyReader(
    ClientTransmission transmission, ClientSession session, NbdClientOptions options, SlabPool slabs)
{
    private readonly InputReader _input = new(session.Transport, slabs, new StallClock(options.TimeProvider));
    private byte[]? _sink;

    /// <summary>Receives until the server has sent its last byte, between two replies.</summary>
    /// <exception cref="NbdClientException">The server broke the protocol.</exception>
    /// <exception cref="ConnectionEndedException">The connection ended inside a reply, or failed.</exception>
    public async Task RunAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            if (_input.Count < ReplyHeader.MagicSize)
            {
                transmission.Settle();
                if (!await _input.FillAsync(ReplyHeader.MagicSize, cancellationToken).ConfigureAwait(false))
                {
                    return;
                }
            }
            // The magic alone tells whether the form is one that was negotiated: a server that sends a shorter one than expected
            // must not leave both sides waiting.
            int size = CheckedSize(ReplyHeader.PeekMagic(_input.Buffered.Span));
            await NeedAsync(size, cancellationToken).ConfigureAwait(false);
            ReplyHeader header = ReplyHeader.Read(_input.Buffered.Span);
            _input.Advance(size);
            PendingCommand command = transmission.Find(header.Cookie)
                ?? throw Violation($"it replied to the cookie 0x{header.Cookie:x}, which no request in flight has");
            if (header.IsSimple)
            {
                await ReadSimpleAsync(command, header.Error, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                await ReadChunkAsync(command, header, cancellationToken).ConfigureAwait(false);
            }
            if (header.IsDone)
            {
                Finish(command, header.IsSimple);
            }
        }
    }

    /// <summary>Gives the buffer back.</summary>
    public void Close() => _input.Close();

    private int CheckedSize(uint magic)
    {
        bool expected = magic switch
        {
            Magic.SimpleReply => !session.ExtendedHeaders,
            Magic.StructuredReply => session.StructuredReplies && !session.ExtendedHeaders,
            Magic.ExtendedReply => session.ExtendedHeaders,
            _ => throw Violation($"a reply begins with 0x{magic:x8}, which is no magic number of a reply"),
        };
        return expected
            ? ReplyHeader.SizeOf(magic)
            : throw Violation($"a reply begins with 0x{magic:x8}, a form of reply that was not negotiated");
    }

    private async ValueTask ReadSimpleAsync(PendingCommand command, uint error, CancellationToken cancellationToken)
    {
        bool isRead = command.Type == CommandType.Read;
        if (isRead && session.StructuredReplies)
        {
            throw Violation("it sent a simple reply to a read, although structured replies were negotiated");
        }
        if (error != 0)
        {
            command.Fault ??= Fault(error, "", command);
        }
        else if (isRead)
        {
            await ReadDataAsync(command, 0, command.Buffer.Length, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>The reply is complete: whether it answers the request.</summary>
    private void Finish(PendingCommand command, bool simple)
    {
        if (command.Fault is null)
        {
            if (command.Type == CommandType.Read && !simple && !command.Coverage.IsComplete(command.Length))
            {
                throw Violation("a reply to a read ended without an error before all of the data was sent");
            }
            if (command.Status is { } status && status.Contexts < (status.Only is null ? session.MetaContexts.Count : 1))
            {
                throw Violation("a block status was answered without an error, but not for every context");
            }
        }
        bool stopping = command.Fault?.Error == NbdError.Shutdown;
        transmission.Finish(command);
        if (stopping)
        {
            transmission.LeaveSoon();
        }
    }

    /// <summary>Data of a read, straight into the caller's memory, as long as the caller still waits for it.</summary>
    private async ValueTask ReadDataAsync(PendingCommand command, int at, int count, CancellationToken cancellationToken)
    {
        while (count > 0)
        {
            int done = 0;
            if (_input.Count > 0)
            {
                done = Math.Min(_input.Count, count);
                if (transmission.TryTouch(command))
                {
                    _input.Buffered.Span[..done].CopyTo(command.Buffer.Span[at..]);
                    transmission.EndTouch(command);
                }
                _input.Advance(done);
            }
            else if (session.Transport.CanReceiveNow)
            {
                done = ReceiveNow(command, at, count);
            }
            if (done <= 0)
            {
                // Nothing is there now. What comes is received into memory of our own: the caller may give up while we wait, and
                // then the buffer is not ours any more.
                transmission.Settle();
                _input.ExpectLargePayload = count > SmallPayload && session.Transport.CanReceiveNow;
                await _input.FillInsideAsync(1, cancellationToken).ConfigureAwait(false);
                _input.ExpectLargePayload = false;
                continue;
            }
            at += done;
            count -= done;
        }
    }

    private const int SmallPayload = 64 << 10;

    private int ReceiveNow(PendingCommand command, int at, int count)
    {
        if (!transmission.TryTouch(command))
        {
            _sink ??= new byte[SmallPayload];
            return Received(session.Transport.ReceiveNow(_sink.AsSpan(0, Math.Min(count, _sink.Length))));
        }
        try
        {
            return Received(session.Transport.ReceiveNow(command.Buffer.Span.Slice(at, count)));
        }
        finally
        {
            transmission.EndTouch(command);
        }
    }

    private static int Received(int received) => received != 0
        ? received
        : throw new ConnectionEndedException(NbdDisconnectReason.ConnectionLost, "the server closed the connection inside a reply");

    /// <summary>Receives until so many bytes of the reply are there.</summary>
    private ValueTask NeedAsync(int count, CancellationToken cancellationToken)
    {
        if (_input.Count >= count)
        {
            return default;
        }
        transmission.Settle();
        return _input.FillInsideAsync(count, cancellationToken);
    }

    private async ValueTask<ulong> ReadNumberAsync(int bytes, CancellationToken cancellationToken)
    {
        await NeedAsync(bytes, cancellationToken).ConfigureAwait(false);
        ReadOnlySpan<byte> span = _input.Buffered.Span;
        ulong value = bytes switch
        {
            2 => BinaryPrimitives.ReadUInt16BigEndian(span),
            4 => BinaryPrimitives.ReadUInt32BigEndian(span),
            _ => BinaryPrimitives.ReadUInt64BigEndian(span),
        };
        _input.Advance(bytes);
        return value;
    }

    private static NbdClientException Violation(string what)
        => new(NbdClientError.ProtocolViolation, "The server broke the protocol: " + what + ".");
}
