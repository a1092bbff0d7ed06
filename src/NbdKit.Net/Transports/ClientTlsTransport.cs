using System.Net.Security;
using System.Net.Sockets;

namespace NbdKit.Transports;

/// <summary>A client's transport, encrypted, over another one.</summary>
/// <param name="stream">The encrypted stream, authenticated; it leaves what it is over open.</param>
/// <param name="inner">What it is over.</param>
internal sealed class ClientTlsTransport(SslStream stream, Transport inner) : Transport
{
    // How long the peer may take to receive the last bytes.
    private static readonly TimeSpan Farewell = TimeSpan.FromSeconds(1);

    public override NbdPeer Peer => inner.Peer;

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        => stream.ReadAsync(buffer, cancellationToken);

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
        => stream.WriteAsync(bytes, cancellationToken);

    public override async ValueTask CloseAsync()
    {
        try
        {
            // close_notify, so that the peer can tell an end from a cut.
            await stream.ShutdownAsync().WaitAsync(Farewell).ConfigureAwait(false);
        }
        catch (Exception e) when (e is IOException or SocketException or TimeoutException or InvalidOperationException
            or OperationCanceledException)
        {
            // The peer is gone already, or takes nothing.
        }
        try
        {
            await inner.CloseAsync().ConfigureAwait(false);
        }
        finally
        {
            await stream.DisposeAsync().ConfigureAwait(false);
        }
    }

    public override void Abort()
    {
        inner.Abort();
        stream.Dispose();
    }
}
