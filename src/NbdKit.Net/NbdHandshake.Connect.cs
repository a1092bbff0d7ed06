using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using NbdKit.Client;

namespace NbdKit;

/// <summary>Connecting.</summary>
public sealed partial class NbdHandshake
{
    /// <summary>Connects to the server that a URI names; the export that it names is not opened.</summary>
    /// <param name="uri">The NBD URI; see <see cref="NbdUri"/>.</param>
    /// <param name="options">What to ask for; the defaults if null. What the URI says goes before it.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="UriFormatException">It is no NBD URI.</exception>
    /// <exception cref="NbdClientException">There is no such server, or no agreement with it.</exception>
    public static Task<NbdHandshake> ConnectAsync(
        string uri, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(uri, options ?? new NbdClientOptions()), cancellationToken);

    /// <inheritdoc cref="ConnectAsync(string, NbdClientOptions, CancellationToken)"/>
    public static Task<NbdHandshake> ConnectAsync(
        Uri uri, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(uri, options ?? new NbdClientOptions()), cancellationToken);

    /// <summary>Connects to a server.</summary>
    /// <param name="endPoint">
    /// Where it listens. A <see cref="DnsEndPoint"/> is tried at each of its addresses; its host is also the name that the
    /// server's certificate must carry.
    /// </param>
    /// <param name="options">What to ask for; the defaults if null.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdClientException">There is no such server, or no agreement with it.</exception>
    public static Task<NbdHandshake> ConnectAsync(
        EndPoint endPoint, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(endPoint, options ?? new NbdClientOptions()), cancellationToken);

    /// <summary>Begins on a connected socket, which is closed in the end, also if this fails.</summary>
    /// <param name="socket">The socket. With TLS the options must name the server: nothing here knows what it is connected to.</param>
    /// <param name="options">What to ask for; the defaults if null.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentException">It is not a connected stream socket.</exception>
    /// <exception cref="NbdClientException">There is no agreement with the server.</exception>
    public static Task<NbdHandshake> ConnectAsync(
        Socket socket, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(socket, options ?? new NbdClientOptions()), cancellationToken);

    /// <summary>Begins on a bidirectional stream, which is disposed of in the end, also if this fails.</summary>
    /// <param name="stream">The stream. With TLS the options must name the server.</param>
    /// <param name="options">What to ask for; the defaults if null.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentException">It cannot be both read and written.</exception>
    /// <exception cref="NbdClientException">There is no agreement with the server.</exception>
    public static Task<NbdHandshake> ConnectAsync(
        Stream stream, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(stream, options ?? new NbdClientOptions()), cancellationToken);

    /// <summary>Begins on a pair of pipes, which are completed in the end, also if this fails.</summary>
    /// <param name="pipe">The pipes. With TLS the options must name the server.</param>
    /// <param name="options">What to ask for; the defaults if null.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdClientException">There is no agreement with the server.</exception>
    public static Task<NbdHandshake> ConnectAsync(
        IDuplexPipe pipe, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(pipe, options ?? new NbdClientOptions()), cancellationToken);

    internal static async Task<NbdHandshake> ConnectAsync(ClientTarget target, CancellationToken cancellationToken)
        => new(await ClientConnector.BeginAsync(target, cancellationToken).ConfigureAwait(false));
}
