using System.IO.Pipelines;
using System.Net.Security;
using System.Net.Sockets;
using NbdKit.Client;
using NbdKit.Transports;

namespace NbdKit;

// Servers with a handshake of their own.
public sealed partial class NbdClient
{
    /// <summary>
    /// Makes a client of a stream on which a handshake of another kind than NBD's is over: requests can be made at once. Nothing is
    /// sent or received before the first.
    /// </summary>
    /// <param name="stream">
    /// The stream, from now on the client's. An <see cref="SslStream"/> on which TLS is established counts as encrypted.
    /// </param>
    /// <param name="negotiated">What was settled; with a size and flags.</param>
    /// <param name="options">
    /// How to make requests; null for the defaults. What it says about connecting, the handshake and what to ask for there does not
    /// count, but for <see cref="NbdTlsPolicy.Require"/>.
    /// </param>
    /// <returns>A client that can make requests.</returns>
    /// <exception cref="ArgumentException">
    /// The stream cannot be both read and written, or is an <see cref="SslStream"/> without an established TLS session; there is no
    /// size or no flags; or meta contexts were selected without structured replies.
    /// </exception>
    /// <exception cref="NbdClientException">TLS is required, and the stream has none.</exception>
    public static NbdClient BeginTransmission(Stream stream, NbdTransmission negotiated, NbdClientOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(negotiated);
        return stream is SslStream { IsAuthenticated: false }
            ? throw new ArgumentException("TLS is not established on this stream yet.", nameof(stream))
            : Begin(options, negotiated, valid => ClientTarget.For(stream, valid));
    }

    /// <summary>As <see cref="BeginTransmission(Stream, NbdTransmission, NbdClientOptions?)"/>, over a connected socket.</summary>
    /// <inheritdoc cref="BeginTransmission(Stream, NbdTransmission, NbdClientOptions?)"/>
    /// <param name="socket">The socket, from now on the client's.</param>
    /// <param name="negotiated">What was settled; with a size and flags.</param>
    /// <param name="options">How to make requests; null for the defaults.</param>
    /// <exception cref="ArgumentException">
    /// The socket is not a connected stream socket; there is no size or no flags; or meta contexts were selected without structured
    /// replies.
    /// </exception>
    public static NbdClient BeginTransmission(Socket socket, NbdTransmission negotiated, NbdClientOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(negotiated);
        return Begin(options, negotiated, valid => ClientTarget.For(socket, valid));
    }

    /// <summary>As <see cref="BeginTransmission(Stream, NbdTransmission, NbdClientOptions?)"/>, over a pair of pipes.</summary>
    /// <inheritdoc cref="BeginTransmission(Stream, NbdTransmission, NbdClientOptions?)"/>
    /// <param name="pipe">The pipes, from now on the client's.</param>
    /// <param name="negotiated">What was settled; with a size and flags.</param>
    /// <param name="options">How to make requests; null for the defaults.</param>
    /// <exception cref="ArgumentException">
    /// There is no size or no flags; or meta contexts were selected without structured replies.
    /// </exception>
    public static NbdClient BeginTransmission(IDuplexPipe pipe, NbdTransmission negotiated, NbdClientOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(negotiated);
        return Begin(options, negotiated, valid => ClientTarget.For(pipe, valid));
    }

    private static NbdClient Begin(
        NbdClientOptions? options, NbdTransmission negotiated, Func<NbdClientOptions, ClientTarget> connection)
    {
        if (negotiated is not { Size: { } size, Flags: { } flags })
        {
            throw new ArgumentException("A client must be given the size and the flags of the export.", nameof(negotiated));
        }
        negotiated.CheckForm();
        ClientTarget target = connection(options ?? new NbdClientOptions());
        Transport transport = target.Transport!;
        if (target.Options.Tls == NbdTlsPolicy.Require && transport.Tls is null)
        {
            transport.Abort();
            throw new NbdClientException(NbdClientError.TlsUnavailable, "TLS is required, and the connection has none");
        }
        var session = new ClientSession(
            transport,
            negotiated.ExportName,
            size,
            flags | TransmissionFlags.HasFlags,
            negotiated.BlockSize,
            Description: null,
            CanonicalName: null,
            negotiated.StructuredReplies || negotiated.ExtendedHeaders,
            negotiated.ExtendedHeaders,
            negotiated.MetaContexts.Index().ToDictionary(context => (uint)context.Index + 1, context => context.Item),
            transport.Tls is not null);
        return new NbdClient(session, target.Options);
    }
}
