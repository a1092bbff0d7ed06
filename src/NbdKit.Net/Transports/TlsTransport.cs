using System.Net.Security;
using System.Net.Sockets;
using System.Runtime.CompilerServices;
using NbdKit.Buffers;

namespace NbdKit.Transports;

/// <summary>TLS over another transport, from NBD_OPT_STARTTLS to the end of the connection.</summary>
/// <remarks>
/// Payload is encrypted straight from where it lies and decrypted straight to where it goes; the records of one send leave in as
/// few pieces as possible. The transport below is used as it is in the handshake: it never gets a thread of its own.
/// </remarks>
internal sealed class TlsTransport : Transport, IDisposable
{
    // What fits into one record has nothing to be gathered with.
    private const int RecordBytes = 16_000;

    // How long a client gets to take the last record.
    private static readonly TimeSpan Linger = TimeSpan.FromSeconds(1);

    private readonly Transport _inner;
    private readonly TransportStream _carrier;
    private readonly SslStream _ssl;

    /// <summary>Puts TLS over a transport of which nothing has been received that was not used.</summary>
    /// <param name="inner">The transport.</param>
    /// <param name="pool">Where records are gathered.</param>
    /// <param name="stall">Runs while the rest of a record is waited for.</param>
    /// <param name="receiving">Fires when nothing more is to be received.</param>
    /// <param name="aborted">Fires when nothing more is to be sent.</param>
    public TlsTransport(Transport inner, SlabPool pool, StallClock stall, CancellationToken receiving, CancellationToken aborted)
    {
        _inner = inner;
        _carrier = new TransportStream(inner, pool, stall, receiving, aborted);
        _ssl = new SslStream(_carrier, leaveInnerStreamOpen: true);
    }

    public override NbdPeer Peer => _inner.Peer;

    public override SslStream Tls => _ssl;

    public override bool IsBusy => _inner.IsBusy;

    /// <summary>Makes the handshake. A failure may be of any type.</summary>
    public Task AuthenticateAsync(SslServerAuthenticationOptions options)
        => _ssl.AuthenticateAsServerAsync(options, CancellationToken.None);

    public override ValueTask WaitForDataAsync(CancellationToken cancellationToken) => IsBusy ? default : WaitAsync();

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        => _ssl.ReadAsync(buffer, CancellationToken.None);

    public override Action? Progressed
    {
        get => _inner.Progressed;
        set => _inner.Progressed = value;
    }

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
        => bytes.Length <= RecordBytes ? _ssl.WriteAsync(bytes, CancellationToken.None) : SendManyAsync(bytes, null);

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, Loan loan, CancellationToken cancellationToken)
        => SendManyAsync(bytes, loan);

    public override bool IsPeerGone() => _inner.IsPeerGone();

    public override void StopReceiving() => _inner.StopReceiving();

    public override async ValueTask CloseAsync()
    {
        if (_ssl.IsAuthenticated)
        {
            try
            {
                await _ssl.ShutdownAsync().WaitAsync(Linger, CancellationToken.None).ConfigureAwait(false);
            }
            catch (Exception e) when (e is IOException or SocketException or InvalidOperationException or TimeoutException
                or OperationCanceledException)
            {
                // The client is gone, or takes nothing: it cannot be told.
                _inner.Abort();
                return;
            }
        }
        await _inner.CloseAsync().ConfigureAwait(false);
    }

    public override void Abort() => _inner.Abort();

    /// <summary>Frees what TLS holds, once nothing is received or sent any more.</summary>
    public void Dispose()
    {
        _ssl.Dispose();
        _carrier.Dispose();
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask WaitAsync()
        => _ = await _ssl.ReadAsync(Memory<byte>.Empty, CancellationToken.None).ConfigureAwait(false);

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask SendManyAsync(ReadOnlyMemory<byte> bytes, Loan? loan)
    {
        _carrier.Gather();
        try
        {
            await _ssl.WriteAsync(bytes, CancellationToken.None).ConfigureAwait(false);
            int position = 0;
            while (loan is not null && position < loan.Length)
            {
                Memory<byte> piece = loan.PieceAt(position);
                await _ssl.WriteAsync(piece, CancellationToken.None).ConfigureAwait(false);
                position += piece.Length;
            }
        }
        finally
        {
            await _carrier.SendGatheredAsync().ConfigureAwait(false);
        }
    }
}
