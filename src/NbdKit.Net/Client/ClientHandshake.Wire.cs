using System.Net.Sockets;
using System.Text;
using NbdKit.Protocol;
using NbdKit.Server;

namespace NbdKit.Client;

/// <summary>Sending options and receiving their replies, within limits of time, count and bytes.</summary>
internal sealed partial class ClientHandshake
{
    private const int MaximumText = 200;

    // All replies to one option together. The longest list that a server may send, with names and descriptions as long as
    // people make them, is a fraction of this.
    private const long MaximumBytes = 16 << 20;

    private static readonly TimeSpan Farewell = TimeSpan.FromSeconds(1);

    /// <summary>
    /// Runs a step of the handshake. Whatever goes wrong leaves as one kind of exception, and a connection on which nothing
    /// more can be said is closed.
    /// </summary>
    private async Task<T> GuardAsync<T>(Func<Task<T>> step, bool leaveOnRefusal, CancellationToken cancellationToken)
    {
        if (_end is not null)
        {
            throw new NbdClientException(_end.Error, _end.Message, _end);
        }
        using var timeout = new CancellationTokenSource(_options.HandshakeTimeout, _options.TimeProvider);
        using var either = CancellationTokenSource.CreateLinkedTokenSource(timeout.Token, cancellationToken);
        _token = either.Token;
        try
        {
            // TLS cannot be cancelled other than by closing what it is over.
            CancellationTokenRegistration cut = either.Token.UnsafeRegister(
                static state => ((ClientHandshake)state!).Cut(), this);
            try
            {
                return await step().ConfigureAwait(false);
            }
            finally
            {
                await cut.DisposeAsync().ConfigureAwait(false);
                either.Token.ThrowIfCancellationRequested();
            }
        }
        catch (NbdClientException e) when (!either.IsCancellationRequested)
        {
            await EndAsync(e, leaveOnRefusal).ConfigureAwait(false);
            throw;
        }
        catch (Exception e) when (either.IsCancellationRequested)
        {
            Cut();
            _end = cancellationToken.IsCancellationRequested
                ? new NbdClientException(NbdClientError.ConnectionLost, "a call was cancelled, which ended the connection", e)
                : new NbdClientException(NbdClientError.Timeout, "the server took too long for its handshake", e);
            cancellationToken.ThrowIfCancellationRequested();
            throw _end;
        }
        catch (Exception e) when (IsTransportFault(e))
        {
            Cut();
            _end = Lost($"the connection was lost in the handshake: {e.Message}", e);
            throw _end;
        }
        catch
        {
            Cut();
            throw;
        }
    }

    private async Task EndAsync(NbdClientException failure, bool leaveOnRefusal)
    {
        switch (failure.Error)
        {
            case NbdClientError.ConnectionLost or NbdClientError.ProtocolViolation or NbdClientError.LimitExceeded
                or NbdClientError.TlsFailed or NbdClientError.Timeout:
                _end = failure;
                Cut();
                break;
            case var _ when leaveOnRefusal || !_haggling || failure.Error == NbdClientError.ServerShutdown:
                _end = failure;
                await LeaveAsync().ConfigureAwait(false);
                break;
            default:
                // The server said no, and listens.
                break;
        }
    }

    /// <summary>Asks for something that the client can do without; whether it was granted.</summary>
    private async Task<bool> TryAsync(OptionType option)
        => await AskAsync(option, default, OptionReplyType.Ack, 0, 0, null).ConfigureAwait(false) is null;

    /// <summary>Sends an option and takes its replies, up to the final one.</summary>
    /// <param name="option">The option.</param>
    /// <param name="payload">Its payload.</param>
    /// <param name="kind">The replies that may come before the final one.</param>
    /// <param name="replyBytes">The bytes that one of them may have.</param>
    /// <param name="replies">How many there may be.</param>
    /// <param name="take">Takes the payload of each; returns what is wrong with it, or null.</param>
    /// <returns>Null if the server acknowledged the option, else its refusal.</returns>
    /// <exception cref="NbdClientException">The server broke the rules, is shutting down, or requires TLS.</exception>
    private async Task<OptionRefusal?> AskAsync(
        OptionType option,
        ReadOnlyMemory<byte> payload,
        OptionReplyType kind,
        int replyBytes,
        int replies,
        Func<byte[], string?>? take)
    {
        await SendAsync(OptionHeader.Message(option, payload.Span)).ConfigureAwait(false);
        long bytes = 0;
        while (true)
        {
            (OptionReplyType type, byte[] content) = await ReadReplyAsync(option, kind, replyBytes).ConfigureAwait(false);
            if (type == OptionReplyType.Ack)
            {
                return null;
            }
            if (type != kind)
            {
                return Refused(new OptionRefusal(option, type, LogText.Clean(Encoding.UTF8.GetString(content), MaximumText)));
            }
            bytes += OptionReply.Size + content.Length;
            if (--replies < 0 || bytes > MaximumBytes)
            {
                throw new NbdClientException(
                    NbdClientError.LimitExceeded, $"the server sent too many replies to {OptionRefusal.Name(option)}");
            }
            if (take!(content) is { } fault)
            {
                throw Violation($"a reply to {OptionRefusal.Name(option)} is wrong: {fault}");
            }
        }
    }

    private OptionRefusal Refused(OptionRefusal refusal)
    {
        ClientLog.OptionRefused(_logger, refusal);
        bool always = refusal.Type == OptionReplyType.ErrShutdown
            || (refusal.Type == OptionReplyType.ErrTlsReqd && refusal.Option != OptionType.StartTls);
        return always ? throw refusal.ToException() : refusal;
    }

    private async Task<(OptionReplyType Type, byte[] Content)> ReadReplyAsync(
        OptionType option, OptionReplyType kind, int replyBytes)
    {
        byte[] header = new byte[OptionReply.Size];
        await ReadAsync(header).ConfigureAwait(false);
        if (!OptionReply.TryRead(header, out OptionType answered, out OptionReplyType type, out uint length))
        {
            throw Violation($"what came in reply to {OptionRefusal.Name(option)} is no reply");
        }
        if (answered != option)
        {
            throw Violation($"the server answered {OptionRefusal.Name(answered)} instead of {OptionRefusal.Name(option)}");
        }
        bool isError = ((uint)type & 0x8000_0000) != 0;
        if (!isError && type != OptionReplyType.Ack && type != kind)
        {
            throw Violation($"the server answered {OptionRefusal.Name(option)} with a reply of type {(uint)type}");
        }
        int maximum = isError ? WireString.MaximumBytes : type == OptionReplyType.Ack ? 0 : replyBytes;
        if (length > (uint)maximum)
        {
            throw Violation($"a reply to {OptionRefusal.Name(option)} has {length} bytes; {maximum} are allowed");
        }
        byte[] content = new byte[length];
        await ReadAsync(content).ConfigureAwait(false);
        return (type, content);
    }

    private ValueTask SendAsync(byte[] bytes) => _transport.SendAsync(bytes, _token);

    /// <summary>Receives exactly what fits in the buffer.</summary>
    private async ValueTask ReadAsync(Memory<byte> buffer)
    {
        while (buffer.Length > 0)
        {
            int received = await _transport.ReceiveAsync(buffer, _token).ConfigureAwait(false);
            switch (received)
            {
                case 0:
                    throw Lost("the server closed the connection in the handshake", null);
                case > 0:
                    _tlsWorks = _isTls;
                    buffer = buffer[received..];
                    break;
                default:
                    await _transport.WaitForDataAsync(_token).ConfigureAwait(false);
                    break;
            }
        }
    }

    // With TLS 1.3 a server refuses the client's certificate after the client has finished.
    private NbdClientException Lost(string message, Exception? inner) => _isTls && !_tlsWorks
        ? new(NbdClientError.TlsFailed, $"{message}: it may not accept this client, or its certificate", inner)
        : new(NbdClientError.ConnectionLost, message, inner);

    private static NbdClientException Violation(string message) => new(NbdClientError.ProtocolViolation, message);

    private static bool IsTransportFault(Exception e) => e is (IOException and not NbdClientException)
        or SocketException or ObjectDisposedException or InvalidOperationException or OperationCanceledException;
}
