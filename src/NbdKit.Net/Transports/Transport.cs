using System.Net.Security;
using NbdKit.Buffers;

namespace NbdKit.Transports;

/// <summary>Bytes to and from one client. One receive and one send may be under way at a time.</summary>
internal abstract class Transport
{
    /// <summary>Where it cannot be seen how much of what was sent is taken, this much is sent at a time.</summary>
    protected const int PieceBytes = 256 << 10;

    /// <summary>Who is at the other end.</summary>
    public virtual NbdPeer Peer => NbdPeer.Unknown;

    /// <summary>The TLS that it speaks, or null for plain text.</summary>
    public virtual SslStream? Tls => null;

    /// <summary>Whether the next receive should be made right away, with a buffer at hand.</summary>
    public virtual bool IsBusy => true;

    /// <summary>Set when the client is likely to wait for a reply before it sends more, and to send soon after.</summary>
    public virtual bool IsClientWaiting
    {
        set { }
    }

    /// <summary>Completes when there is something to receive, without holding a buffer meanwhile.</summary>
    public virtual ValueTask WaitForDataAsync(CancellationToken cancellationToken) => default;

    /// <summary>
    /// Receives at least one byte; 0 when the client has sent its last; -1 if nothing came for a while, so that the caller can
    /// do without its buffer and wait.
    /// </summary>
    public abstract ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken);

    /// <summary>Whether <see cref="ReceiveNow"/> can be used.</summary>
    public virtual bool CanReceiveNow => false;

    /// <summary>Receives what is there; -1 if that is nothing, 0 when the peer has sent its last byte.</summary>
    public virtual int ReceiveNow(Span<byte> buffer) => -1;

    /// <summary>Called each time that the peer has taken a part of what is being sent, if that takes its time.</summary>
    public virtual Action? Progressed { get; set; }

    /// <summary>Sends everything.</summary>
    public abstract ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken);

    /// <summary>Whether ranges of files can be sent.</summary>
    public virtual bool TakesFiles => false;

    /// <summary>Receives into lent memory from a position on; as <see cref="ReceiveAsync(Memory{byte}, CancellationToken)"/>.</summary>
    public virtual ValueTask<int> ReceiveAsync(Loan loan, int position, CancellationToken cancellationToken)
        => ReceiveAsync(loan.PieceAt(position), cancellationToken);

    /// <summary>Sends bytes, and what is lent behind them.</summary>
    public virtual async ValueTask SendAsync(ReadOnlyMemory<byte> bytes, Loan loan, CancellationToken cancellationToken)
    {
        await SendAsync(bytes, cancellationToken).ConfigureAwait(false);
        int position = 0;
        while (position < loan.Length)
        {
            Memory<byte> piece = loan.PieceAt(position);
            await SendAsync(piece, cancellationToken).ConfigureAwait(false);
            position += piece.Length;
        }
    }

    /// <summary>
    /// Whether a client that has sent its last byte is gone altogether, as far as the transport can tell: nobody would
    /// receive a reply.
    /// </summary>
    public virtual bool IsPeerGone() => false;

    /// <summary>The handshake is over.</summary>
    public virtual void BeginTransmission()
    {
    }

    /// <summary>No request will be received or answered any more.</summary>
    public virtual ValueTask EndTransmissionAsync() => default;

    /// <summary>Lets a receive under way end, as if the client had sent its last byte, where its token does not reach it.</summary>
    public virtual void StopReceiving()
    {
    }

    /// <summary>Ends in order: what was sent reaches the client.</summary>
    public abstract ValueTask CloseAsync();

    /// <summary>Ends at once; a receive or send under way fails. May be called at any time, from any thread.</summary>
    public abstract void Abort();
}
