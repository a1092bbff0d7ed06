using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;

namespace NbdKit;

/// <summary>
/// Serves one chain to NBD clients: on endpoints of its own, and over any stream, socket or pipe that it is given.
/// </summary>
/// <remarks>
/// Any number of servers live in one process, also several for one chain. All members are safe for use by several threads.
/// </remarks>
public sealed class NbdServer : IAsyncDisposable
{
    /// <summary>Creates a server; nothing happens before <see cref="StartAsync"/>.</summary>
    /// <param name="backend">The chain to serve; see <see cref="NbdBackend"/> for who ends it.</param>
    /// <param name="options">How to serve it; the defaults if null.</param>
    public NbdServer(NbdBackend backend, NbdServerOptions? options = null)
    {
        throw new NotImplementedException();
    }

    /// <summary>The endpoints that the server listens on, with ports resolved. Empty before the start.</summary>
    public IReadOnlyList<EndPoint> EndPoints => throw new NotImplementedException();

    /// <summary>The NBD URI of each endpoint. Empty before the start.</summary>
    public IReadOnlyList<Uri> Uris => throw new NotImplementedException();

    /// <summary>The clients that are connected now.</summary>
    public IReadOnlyCollection<NbdConnection> Connections => throw new NotImplementedException();

    /// <summary>
    /// Completes when the server has stopped, for whatever reason: <see cref="StopAsync"/>, or a layer that asked for it.
    /// </summary>
    public Task Stopped => throw new NotImplementedException();

    /// <summary>Starts the chain if need be, binds every endpoint and begins to accept. Ready for clients when it returns.</summary>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="SocketException">An endpoint could not be bound; nothing listens then.</exception>
    public ValueTask StartAsync(CancellationToken cancellationToken = default) => throw new NotImplementedException();

    /// <summary>Serves one client over a connected socket, which the server closes.</summary>
    /// <param name="socket">The socket.</param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <returns>How the connection ended.</returns>
    public Task<NbdDisconnect> ServeAsync(Socket socket, CancellationToken cancellationToken = default)
        => throw new NotImplementedException();

    /// <summary>Serves one client over a bidirectional stream, which the server disposes of.</summary>
    /// <param name="stream">The stream.</param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <returns>How the connection ended.</returns>
    public Task<NbdDisconnect> ServeAsync(Stream stream, CancellationToken cancellationToken = default)
        => throw new NotImplementedException();

    /// <summary>Serves one client over a pair of pipes, which the server completes.</summary>
    /// <param name="pipe">The pipes.</param>
    /// <param name="cancellationToken">Cuts the connection.</param>
    /// <returns>How the connection ended.</returns>
    public Task<NbdDisconnect> ServeAsync(IDuplexPipe pipe, CancellationToken cancellationToken = default)
        => throw new NotImplementedException();

    /// <summary>
    /// Stops in order: accepts no more clients, lets requests in flight finish for up to
    /// <see cref="NbdServerOptions.StopTimeout"/>, then cuts what is left and ends the chain if nobody else uses it.
    /// </summary>
    /// <param name="cancellationToken">Cuts what is left at once.</param>
    public Task StopAsync(CancellationToken cancellationToken = default) => throw new NotImplementedException();

    /// <summary>Stops the server and waits for everything of it to end.</summary>
    public async ValueTask DisposeAsync() => await StopAsync(CancellationToken.None).ConfigureAwait(false);
}
