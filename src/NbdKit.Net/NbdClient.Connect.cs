using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;
using NbdKit.Client;

namespace NbdKit;

// Connecting, and opening the export that the options name.
public sealed partial class NbdClient
{
    /// <summary>Connects to the export that a URI names, such as <c>nbd://host/export</c> (see <see cref="NbdUri"/>).</summary>
    /// <param name="uri">The URI. What it says goes before what the options say.</param>
    /// <param name="options">How to connect; null for the defaults.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>A client that can make requests.</returns>
    /// <exception cref="UriFormatException">It is no NBD URI, or has a part that would be ignored.</exception>
    /// <exception cref="NbdClientException">It failed; the exception says why.</exception>
    public static Task<NbdClient> ConnectAsync(
        string uri, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(uri, options ?? new NbdClientOptions()), cancellationToken);

    /// <inheritdoc cref="ConnectAsync(string, NbdClientOptions?, CancellationToken)"/>
    public static Task<NbdClient> ConnectAsync(
        Uri uri, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(uri, options ?? new NbdClientOptions()), cancellationToken);

    /// <summary>Connects to the export that the options name, at an address.</summary>
    /// <param name="endPoint">
    /// The address: <see cref="DnsEndPoint"/>, <see cref="IPEndPoint"/>, <see cref="UnixDomainSocketEndPoint"/> or
    /// <see cref="VsockEndPoint"/>.
    /// </param>
    /// <param name="options">How to connect; null for the defaults.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>A client that can make requests.</returns>
    /// <exception cref="NbdClientException">It failed; the exception says why.</exception>
    public static Task<NbdClient> ConnectAsync(
        EndPoint endPoint, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(endPoint, options ?? new NbdClientOptions()), cancellationToken);

    /// <summary>Opens the export that the options name, over a connected socket.</summary>
    /// <param name="socket">The socket, from now on the client's; nothing was sent or received over it.</param>
    /// <param name="options">How to connect; null for the defaults.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>A client that can make requests.</returns>
    /// <exception cref="ArgumentException">The socket is not a connected stream socket.</exception>
    /// <exception cref="NbdClientException">It failed; the exception says why.</exception>
    public static Task<NbdClient> ConnectAsync(
        Socket socket, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(socket, options ?? new NbdClientOptions()), cancellationToken);

    /// <summary>Opens the export that the options name, over a stream in both directions.</summary>
    /// <param name="stream">The stream, from now on the client's; nothing was sent or received over it.</param>
    /// <param name="options">How to connect; null for the defaults.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>A client that can make requests.</returns>
    /// <exception cref="ArgumentException">The stream cannot be both read and written.</exception>
    /// <exception cref="NbdClientException">It failed; the exception says why.</exception>
    public static Task<NbdClient> ConnectAsync(
        Stream stream, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(stream, options ?? new NbdClientOptions()), cancellationToken);

    /// <summary>Opens the export that the options name, over a pair of pipes.</summary>
    /// <param name="pipe">The pipes, from now on the client's; nothing was sent or received over them.</param>
    /// <param name="options">How to connect; null for the defaults.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>A client that can make requests.</returns>
    /// <exception cref="NbdClientException">It failed; the exception says why.</exception>
    public static Task<NbdClient> ConnectAsync(
        IDuplexPipe pipe, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(pipe, options ?? new NbdClientOptions()), cancellationToken);

    internal static async Task<NbdClient> ConnectAsync(ClientTarget target, CancellationToken cancellationToken)
        => new(await ClientConnector.ConnectAsync(target, cancellationToken).ConfigureAwait(false), target.Options);
}
