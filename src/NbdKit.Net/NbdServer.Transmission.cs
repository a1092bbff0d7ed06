using System.IO.Pipelines;
using System.Net.Security;
using System.Net.Sockets;
using NbdKit.Transports;

namespace NbdKit;

// Peers with a handshake of their own.
public sealed partial class NbdServer
{
    /// <summary>
    /// Serves one peer over a bidirectional stream from the transmission phase on: the handshake was, or is, the host's. The server
    /// disposes of the stream. Starts the server if need be.
    /// </summary>
    /// <remarks>
    /// <para>
    /// The export is opened as for NBD_OPT_GO: layers may refuse the peer or the export, the limits, timeouts and hooks of
    /// <see cref="NbdServerOptions"/> count, but for those about what a handshake offers. What fails so is told by the result, and
    /// nothing was sent then. The peer has no other way to learn of it than by the end of the connection.
    /// </para>
    /// <para>
    /// Where <see cref="NbdServerTls.IsRequired"/>, or where the export is not among those that are served in plain text, the
    /// stream must be an <see cref="SslStream"/>; else the connection ends with <see cref="NbdDisconnectReason.TlsRequired"/>.
    /// </para>
    /// </remarks>
    /// <param name="stream">The stream. TLS is established on it, if it is an <see cref="SslStream"/>.</param>
    /// <param name="negotiated">What was settled, or how to settle it (<see cref="NbdTransmission.Opened"/>).</param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <returns>How the connection ended.</returns>
    /// <exception cref="ArgumentException">
    /// It is an <see cref="SslStream"/> without an established TLS session; or what was settled is more than the export has: a larger
    /// size, more flags, an unknown meta context. No byte was exchanged, and the stream is closed in the latter case.
    /// </exception>
    public Task<NbdDisconnect> ServeTransmissionAsync(
        Stream stream, NbdTransmission negotiated, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(stream);
        ArgumentNullException.ThrowIfNull(negotiated);
        return stream is SslStream { IsAuthenticated: false }
            ? throw new ArgumentException("TLS is not established on this stream yet.", nameof(stream))
            : ServeAsync(new StreamTransport(stream), negotiated, cancellationToken);
    }

    /// <summary>
    /// As <see cref="ServeTransmissionAsync(Stream, NbdTransmission, CancellationToken)"/>, over a connected socket.
    /// </summary>
    /// <inheritdoc cref="ServeTransmissionAsync(Stream, NbdTransmission, CancellationToken)"/>
    /// <param name="socket">The socket.</param>
    /// <param name="negotiated">What was settled, or how to settle it (<see cref="NbdTransmission.Opened"/>).</param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <exception cref="ArgumentException">What was settled is more than the export has; the socket is closed then.</exception>
    public Task<NbdDisconnect> ServeTransmissionAsync(
        Socket socket, NbdTransmission negotiated, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(socket);
        ArgumentNullException.ThrowIfNull(negotiated);
        return ServeAsync(_core.TransportFor(socket), negotiated, cancellationToken);
    }

    /// <summary>
    /// As <see cref="ServeTransmissionAsync(Stream, NbdTransmission, CancellationToken)"/>, over a pair of pipes.
    /// </summary>
    /// <inheritdoc cref="ServeTransmissionAsync(Stream, NbdTransmission, CancellationToken)"/>
    /// <param name="pipe">The pipes.</param>
    /// <param name="negotiated">What was settled, or how to settle it (<see cref="NbdTransmission.Opened"/>).</param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <exception cref="ArgumentException">What was settled is more than the export has; the pipes are completed then.</exception>
    public Task<NbdDisconnect> ServeTransmissionAsync(
        IDuplexPipe pipe, NbdTransmission negotiated, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(pipe);
        ArgumentNullException.ThrowIfNull(negotiated);
        return ServeAsync(new PipeTransport(pipe), negotiated, cancellationToken);
    }
}
