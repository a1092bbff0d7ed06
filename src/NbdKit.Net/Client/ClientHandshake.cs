using System.Buffers.Binary;
using Microsoft.Extensions.Logging;
using NbdKit.Protocol;
using NbdKit.Transports;

namespace NbdKit.Client;

/// <summary>
/// The client's side of the handshake phase: greeting, TLS, the form of replies, then options until an export is opened or the
/// client leaves.
/// </summary>
/// <remarks>
/// <para>
/// Nothing is received ahead: every receive is exactly as long as what must come next. So no byte that came in plain text can be
/// taken for one that came through TLS, and none of the transmission phase is lost.
/// </para>
/// <para>For one call at a time, but for <see cref="Cut"/>. A call that is cancelled, or takes too long, ends the connection.</para>
/// </remarks>
internal sealed partial class ClientHandshake
{
    private readonly NbdClientOptions _options;
    private readonly string? _host;
    private readonly ILogger _logger;
    private volatile Transport _transport;
    private volatile bool _cut;
    private CancellationToken _token;
    private bool _fixedNewstyle;
    private bool _noZeroes;
    private bool _isTls;
    private bool _tlsWorks;
    private bool _haggling;
    private NbdClientException? _end;

    /// <summary>Begins with a connection on which nothing was sent or received.</summary>
    /// <param name="transport">The connection, from now on the handshake's.</param>
    /// <param name="options">What to ask for.</param>
    /// <param name="host">The host that was connected to, or null if there is none: a Unix socket, a stream.</param>
    public ClientHandshake(Transport transport, NbdClientOptions options, string? host)
    {
        _transport = transport;
        _options = options;
        _host = host;
        _logger = options.LoggerFactory.CreateLogger("NbdKit.Client");
    }

    public bool IsTls => _isTls;

    public bool IsFixedNewstyle => _fixedNewstyle;

    public bool StructuredReplies { get; private set; }

    public bool ExtendedHeaders { get; private set; }

    /// <summary>The whole handshake, up to the transmission phase of the export that the options name.</summary>
    public static Task<ClientSession> RunAsync(
        Transport transport, NbdClientOptions options, string? host, CancellationToken cancellationToken)
    {
        var handshake = new ClientHandshake(transport, options, host);
        return handshake.GuardAsync(
            async () =>
            {
                await handshake.NegotiateAsync().ConfigureAwait(false);
                return await handshake.OpenAsync(options.ExportName).ConfigureAwait(false);
            },
            leaveOnRefusal: true,
            cancellationToken);
    }

    /// <summary>The first half: everything that comes before an export is named.</summary>
    public static Task<ClientHandshake> BeginAsync(
        Transport transport, NbdClientOptions options, string? host, CancellationToken cancellationToken)
    {
        var handshake = new ClientHandshake(transport, options, host);
        return handshake.GuardAsync(
            async () =>
            {
                await handshake.NegotiateAsync().ConfigureAwait(false);
                return handshake;
            },
            leaveOnRefusal: true,
            cancellationToken);
    }

    /// <summary>The second half: opens an export. If the server refuses, the handshake goes on.</summary>
    public Task<ClientSession> GoAsync(string exportName, CancellationToken cancellationToken)
        => GuardAsync(() => OpenAsync(exportName), leaveOnRefusal: false, cancellationToken);

    /// <summary>Leaves in good order, with NBD_OPT_ABORT, if there is still something to leave.</summary>
    public async Task LeaveAsync()
    {
        if (!_haggling || !_fixedNewstyle || _cut)
        {
            Cut();
            return;
        }
        _haggling = false;
        using var limit = new CancellationTokenSource(Farewell, _options.TimeProvider);
        CancellationTokenRegistration cut = limit.Token.UnsafeRegister(static state => ((ClientHandshake)state!).Cut(), this);
        try
        {
            _token = limit.Token;
            await SendAsync(OptionHeader.Message(OptionType.Abort, default)).ConfigureAwait(false);
            // The answer has no meaning, but a server may be put off by a client that is gone before it.
            await ReadAsync(new byte[OptionReply.Size]).ConfigureAwait(false);
        }
        catch (Exception e) when (e is NbdClientException || IsTransportFault(e))
        {
            // It need not answer.
        }
        await cut.DisposeAsync().ConfigureAwait(false);
        try
        {
            await _transport.CloseAsync().ConfigureAwait(false);
        }
        catch (Exception e) when (IsTransportFault(e))
        {
            Cut();
        }
    }

    /// <summary>Ends the connection at once. At any time, from any thread.</summary>
    public void Cut()
    {
        _cut = true;
        _transport.Abort();
    }

    private async Task NegotiateAsync()
    {
        // Before a byte travels: without a name there is nothing that the server could prove.
        var authentication = _options.Tls == NbdTlsPolicy.Off ? null : ClientTls.AuthenticationFor(_options, _host);
        await GreetAsync().ConfigureAwait(false);
        if (authentication is not null)
        {
            await StartTlsAsync(authentication).ConfigureAwait(false);
        }
        if (!_fixedNewstyle)
        {
            return;
        }
        if (_options.RequestExtendedHeaders)
        {
            ExtendedHeaders = await TryAsync(OptionType.ExtendedHeaders).ConfigureAwait(false);
        }
        if (!ExtendedHeaders && _options.RequestStructuredReplies)
        {
            StructuredReplies = await TryAsync(OptionType.StructuredReply).ConfigureAwait(false);
        }
    }

    private async Task GreetAsync()
    {
        byte[] greeting = new byte[Greeting.Size];
        // An oldstyle greeting is longer, and what is no NBD at all may be shorter: look as soon as something can be told.
        await ReadAsync(greeting.AsMemory(0, 16)).ConfigureAwait(false);
        if (Greeting.Fault(greeting, out bool oldstyle) is { } fault)
        {
            throw new NbdClientException(oldstyle ? NbdClientError.Unsupported : NbdClientError.ProtocolViolation, fault);
        }
        await ReadAsync(greeting.AsMemory(16)).ConfigureAwait(false);
        HandshakeFlags flags = Greeting.Flags(greeting) & (HandshakeFlags.FixedNewstyle | HandshakeFlags.NoZeroes);
        _fixedNewstyle = (flags & HandshakeFlags.FixedNewstyle) != 0;
        _noZeroes = (flags & HandshakeFlags.NoZeroes) != 0;
        if (!_fixedNewstyle && _options.Tls == NbdTlsPolicy.Require)
        {
            throw new NbdClientException(NbdClientError.TlsUnavailable, "the server knows no options, and so no TLS");
        }
        byte[] answer = new byte[4];
        BinaryPrimitives.WriteUInt32BigEndian(answer, (uint)flags);
        await SendAsync(answer).ConfigureAwait(false);
        _haggling = true;
    }
}
