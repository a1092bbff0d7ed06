using System.Buffers;
using System.Buffers.Binary;
using NbdKit.Protocol;

namespace NbdKit.Server;

/// <summary>
/// The handshake phase: greeting, client flags, then "option haggling" until the client enters transmission or leaves.
/// </summary>
/// <remarks>
/// Newstyle, but for one part. Every option gets exactly one final reply; a payload is read whole before the option is looked at, so
/// that a refused option never leaves bytes behind. The options are in the other parts of this class.
/// </remarks>
internal sealed partial class Handshake
{
    // An option above MaxOptionPayload is read and thrown away up to this many times the limit, to be answered politely.
    private const int SkipFactor = 8;

    // Holds nearly every payload that a client has reason to send.
    private const int FirstPiece = 8 << 10;

    // A payload counts as one more option for each so many bytes: it has to be received.
    private const int PayloadOfAnOption = 32 << 10;

    // How many options a handshake may have that are as full of queries as one may be.
    private const int OptionsFullOfQueries = 4;

    private readonly Connection _connection;
    private readonly NbdServerOptions _options;
    private InputReader _input;
    private OptionReplies _replies;
    private bool _fixedNewstyle;
    private bool _noZeroes;
    private ReplyForm _form;
    private bool _listed;
    private long _optionsLeft;
    private long _opensLeft;
    private long _metaOpensLeft;
    private long _queriesLeft;
    private long _sent;
    private byte[]? _rented;

    public Handshake(Connection connection)
    {
        _connection = connection;
        _options = connection.Server.Options;
        _input = connection.Input;
        _replies = new OptionReplies(connection.Transport, connection.SendStall);
        _optionsLeft = _options.MaxOptions;
        _opensLeft = _options.MaxOpensInHandshake;
        _metaOpensLeft = _options.MaxOpensInHandshake;
        _queriesLeft = (long)_options.MaxMetaQueries * OptionsFullOfQueries;
    }

    /// <summary>Negotiates until the client enters transmission; null if it left in good order.</summary>
    public async Task<ExportSession?> RunAsync()
    {
        try
        {
            return await NegotiateAsync().ConfigureAwait(false);
        }
        catch (ConnectionEndedException e) when (e.InnerException is null)
        {
            await SendLastAsync().ConfigureAwait(false);
            throw;
        }
        finally
        {
            ReturnRented();
            await CloseOpenedAsync().ConfigureAwait(false);
        }
    }

    private async Task<ExportSession?> NegotiateAsync()
    {
        if (_connection.Negotiated is { } negotiated)
        {
            return await SettledAsync(negotiated).ConfigureAwait(false);
        }
        if (_options.Oldstyle)
        {
            return await OldstyleAsync().ConfigureAwait(false);
        }
        await GreetAsync().ConfigureAwait(false);
        while (true)
        {
            OptionHeader option = await ReadOptionAsync().ConfigureAwait(false);
            if (option.Length > _options.MaxOptionPayload)
            {
                await SkipOptionAsync(option).ConfigureAwait(false);
                continue;
            }
            ReadOnlyMemory<byte> payload = await ReadPayloadAsync((int)option.Length).ConfigureAwait(false);
            if (option.Type == OptionType.Abort)
            {
                return await AbortAsync().ConfigureAwait(false);
            }
            if (option.Type == OptionType.ExportName)
            {
                return await ExportNameAsync(payload).ConfigureAwait(false);
            }
            if (Refusal(option.Type) is { } refusal)
            {
                _replies.Error(option.Type, refusal.Error, refusal.Message);
            }
            else if (await AnswerAsync(option.Type, payload).ConfigureAwait(false) is { } session)
            {
                return session;
            }
            if (!IsNextHere() || _replies.Pending >= SendThreshold)
            {
                await SendAsync().ConfigureAwait(false);
            }
        }
    }

    /// <summary>Whether the client has sent all of its next option already: the replies go out together then.</summary>
    private bool IsNextHere()
        => _input.Count >= OptionHeader.Size
            && OptionHeader.TryRead(_input.Buffered.Span, out OptionHeader next)
            && next.Length <= _input.Count - OptionHeader.Size;

    /// <summary>
    /// Sends the replies that are ready, as long as the client has not caused too many. It may take as long as the client likes, or the
    /// layers that are asked next: the payload of the option has been read by now.
    /// </summary>
    private ValueTask SendAsync()
    {
        _input.Rest();
        _sent += _replies.Pending;
        return _sent <= _options.MaxHandshakeReplyBytes
            ? _replies.SendAsync(_connection.Aborted)
            : throw new ConnectionEndedException(NbdDisconnectReason.LimitExceeded, "the client asked for too many replies to options");
    }

    /// <summary>Sends what was answered before the end, unless it is that which is too much.</summary>
    private async ValueTask SendLastAsync()
    {
        if (_sent > _options.MaxHandshakeReplyBytes)
        {
            return;
        }
        try
        {
            await _replies.SendAsync(_connection.Aborted).ConfigureAwait(false);
        }
        catch (ConnectionEndedException)
        {
            // The connection ends for the first reason.
        }
    }

    private async ValueTask GreetAsync()
    {
        HandshakeFlags offered = (_options.OfferFixedNewstyle ? HandshakeFlags.FixedNewstyle : 0)
            | (_options.OfferNoZeroes ? HandshakeFlags.NoZeroes : 0);
        Greet(offered);
        await _replies.SendAsync(_connection.Aborted).ConfigureAwait(false);
        if (!await _input.FillAsync(4, _connection.Receiving).ConfigureAwait(false))
        {
            throw Gone();
        }
        uint answer = BinaryPrimitives.ReadUInt32BigEndian(_input.Buffered.Span);
        _input.Advance(4);
        if ((answer & ~(uint)offered) != 0)
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.ProtocolViolation, $"the client answered with flags 0x{answer:x} that were not offered");
        }
        _fixedNewstyle = (answer & (uint)HandshakeFlags.FixedNewstyle) != 0;
        _noZeroes = (answer & (uint)HandshakeFlags.NoZeroes) != 0;
        if (NeedsTls && !_fixedNewstyle)
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.TlsRequired, "TLS is required, and the client does not know fixed newstyle, which it takes");
        }
    }

    // NBDMAGIC 64, IHAVEOPT 64, handshake flags 16.
    private void Greet(HandshakeFlags offered)
    {
        Span<byte> greeting = _replies.Raw(18);
        BinaryPrimitives.WriteUInt64BigEndian(greeting, Magic.Init);
        BinaryPrimitives.WriteUInt64BigEndian(greeting[8..], Magic.Option);
        BinaryPrimitives.WriteUInt16BigEndian(greeting[16..], (ushort)offered);
    }

    private async ValueTask<OptionHeader> ReadOptionAsync()
    {
        ReturnRented();
        if (!await _input.FillAsync(OptionHeader.Size, _connection.Receiving).ConfigureAwait(false))
        {
            throw Gone();
        }
        if (!OptionHeader.TryRead(_input.Buffered.Span, out OptionHeader option))
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.ProtocolViolation, "the client sent something that is no option");
        }
        _input.Advance(OptionHeader.Size);
        Log.OptionReceived(_connection.Server.Logger, _connection.Public.Id, option.Type, option.Length);
        _optionsLeft -= 1 + (Math.Min(option.Length, (long)_options.MaxOptionPayload * SkipFactor) / PayloadOfAnOption);
        if (_optionsLeft < 0 && option.Type is not (OptionType.Abort or OptionType.ExportName))
        {
            throw new ConnectionEndedException(NbdDisconnectReason.LimitExceeded, "the client sent too many options");
        }
        return option;
    }

    /// <summary>The payload of an option, valid until something is sent, or the next one is read.</summary>
    private async ValueTask<ReadOnlyMemory<byte>> ReadPayloadAsync(int length)
    {
        if (_input.Count >= length)
        {
            ReadOnlyMemory<byte> here = _input.Buffered[..length];
            _input.Advance(length);
            return here;
        }
        // Memory grows with what has arrived, never with what was announced.
        int have = 0;
        while (have < length)
        {
            int next = have == 0 ? Math.Min(length, FirstPiece) : (int)Math.Min(length, have * 4L);
            byte[] larger = ArrayPool<byte>.Shared.Rent(next);
            _rented.AsSpan(0, have).CopyTo(larger);
            ReturnRented();
            _rented = larger;
            await _input.ReadExactlyAsync(larger.AsMemory(have, next - have), _connection.Receiving).ConfigureAwait(false);
            have = next;
        }
        return _rented.AsMemory(0, length);
    }

    private void ReturnRented()
    {
        if (_rented is { } rented)
        {
            _rented = null;
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    private async ValueTask SkipOptionAsync(OptionHeader option)
    {
        if (option.Length > (long)_options.MaxOptionPayload * SkipFactor || option.Type == OptionType.ExportName)
        {
            throw new ConnectionEndedException(
                NbdDisconnectReason.LimitExceeded, $"the client sent an option of {option.Length} bytes");
        }
        await _input.SkipAsync(option.Length, _connection.Receiving).ConfigureAwait(false);
        if (option.Type == OptionType.SetMetaContext)
        {
            ForgetMetaContexts();
        }
        _connection.Refused(ReachedLimits.OptionSize);
        (OptionReplyType error, string message) = TooLarge(option.Type);
        _replies.Error(option.Type, error, message);
        await SendAsync().ConfigureAwait(false);
    }

    private (OptionReplyType Error, string Message)? Refusal(OptionType option)
    {
        if (!_fixedNewstyle)
        {
            return (OptionReplyType.ErrInvalid, "without fixed newstyle only NBD_OPT_EXPORT_NAME is possible");
        }
        if (_connection.RefusesRequests)
        {
            return (OptionReplyType.ErrShutdown, _connection.Refusal.Detail);
        }
        if (option == OptionType.StructuredReply && _form == ReplyForm.Extended)
        {
            return (OptionReplyType.ErrExtendedHeadersRequired, "extended headers were negotiated, which go beyond structured replies");
        }
        if (NeedsTls && option != OptionType.StartTls)
        {
            return TlsIsRequired;
        }
        return option switch
        {
            OptionType.StartTls when _options.Tls is not null || IsEncrypted => null,
            OptionType.List or OptionType.Info or OptionType.Go => null,
            OptionType.StructuredReply when _options.OfferStructuredReplies => null,
            OptionType.ExtendedHeaders when _options.OfferExtendedHeaders => null,
            OptionType.ListMetaContext or OptionType.SetMetaContext when _options.OfferMetaContexts => null,
            _ => (OptionReplyType.ErrUnsup, "the option is not supported"),
        };
    }

    private async ValueTask<ExportSession?> AnswerAsync(OptionType option, ReadOnlyMemory<byte> payload)
    {
        switch (option)
        {
            case OptionType.List:
                await ListAsync(payload).ConfigureAwait(false);
                return null;
            case OptionType.StartTls:
                await StartTlsAsync(payload).ConfigureAwait(false);
                return null;
            case OptionType.StructuredReply:
                Agree(option, ReplyForm.Structured, payload);
                return null;
            case OptionType.ExtendedHeaders:
                Agree(option, ReplyForm.Extended, payload);
                return null;
            case OptionType.ListMetaContext:
            case OptionType.SetMetaContext:
                await MetaContextAsync(option, payload).ConfigureAwait(false);
                return null;
            default:
                return await InfoOrGoAsync(option, payload).ConfigureAwait(false);
        }
    }

    private async ValueTask<ExportSession?> AbortAsync()
    {
        _connection.End(NbdDisconnectReason.ClientDone, "the client aborted the handshake");
        _replies.Ack(OptionType.Abort);
        try
        {
            await _replies.SendAsync(_connection.Aborted).ConfigureAwait(false);
        }
        catch (ConnectionEndedException)
        {
            // A client need not wait for the acknowledgement of its goodbye.
        }
        return null;
    }

    private void Agree(OptionType option, ReplyForm form, ReadOnlyMemory<byte> payload)
    {
        if (payload.Length != 0)
        {
            _replies.Error(option, OptionReplyType.ErrInvalid, "the option has no payload");
            return;
        }
        _form = form;
        _replies.Ack(option);
    }

    private static ConnectionEndedException Gone()
        => new(NbdDisconnectReason.ClientGone, "the client closed the connection in the handshake");
}
