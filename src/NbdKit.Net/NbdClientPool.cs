using System.Net;
using NbdKit.Client;
using NbdKit.Client.Pool;

namespace NbdKit;

/// <summary>
/// Several connections to one export, used as one: requests are spread over them, and lost ones are replaced if a policy says so.
/// </summary>
/// <remarks>
/// <para>
/// More than one connection is only opened to an export that is multi-conn (NBD_FLAG_CAN_MULTI_CONN); to others there is one. A
/// flush waits for every write, trim and zero that was begun before it, on whatever connection, before it is sent, so it covers
/// them all.
/// </para>
/// <para>
/// Requests, failures and threads are as with <see cref="NbdClient"/>. Without a policy a connection that has ended is not replaced:
/// the others go on, and when none is left every request fails.
/// </para>
/// </remarks>
public sealed partial class NbdClientPool : IAsyncDisposable
{
    private readonly PoolMember[] _members;
    private readonly ChangeLog _changes = new();
    private readonly NbdReconnectPolicy? _policy;
    private uint _next;

    private NbdClientPool(
        NbdClient[] clients,
        Func<CancellationToken, Task<NbdClient>>? connect,
        NbdReconnectPolicy? policy,
        TimeProvider timeProvider)
    {
        _policy = policy;
        Info = clients[0].Info;
        ExportName = clients[0].ExportName;
        _members = [.. clients.Select(client => new PoolMember(client, connect, policy, timeProvider, _changes.Lose))];
    }

    /// <summary>Uses one connection that there is, which is disposed of with the pool.</summary>
    internal NbdClientPool(NbdClient client)
        : this([client], null, null, TimeProvider.System)
    {
    }

    /// <summary>What the export is and can do.</summary>
    public NbdExportInfo Info { get; }

    /// <summary>The name of the export, as it was asked for.</summary>
    public string ExportName { get; }

    /// <summary>The connections, as they are now; some may have ended. For looking at, not for requests of one's own.</summary>
    public IReadOnlyList<NbdClient> Clients => [.. _members.Select(member => member.Client)];

    /// <summary>Connects to the export that a URI names.</summary>
    /// <param name="uri">The URI. What it says goes before what the options say.</param>
    /// <param name="connections">The connections to have if the export is multi-conn, 1 or more.</param>
    /// <param name="options">How to connect; null for the defaults.</param>
    /// <param name="reconnect">How to replace connections that are lost; null to leave it.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>A pool that can make requests.</returns>
    /// <exception cref="UriFormatException">It is no NBD URI, or has a part that would be ignored.</exception>
    /// <exception cref="NbdClientException">It failed; the exception says why.</exception>
    public static Task<NbdClientPool> ConnectAsync(
        string uri,
        int connections,
        NbdClientOptions? options = null,
        NbdReconnectPolicy? reconnect = null,
        CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(uri, options ?? new NbdClientOptions()), connections, reconnect, cancellationToken);

    /// <summary>Connects to the export that the options name, at an address.</summary>
    /// <param name="endPoint">The address.</param>
    /// <param name="connections">The connections to have if the export is multi-conn, 1 or more.</param>
    /// <param name="options">How to connect; null for the defaults.</param>
    /// <param name="reconnect">How to replace connections that are lost; null to leave it.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>A pool that can make requests.</returns>
    /// <exception cref="NbdClientException">It failed; the exception says why.</exception>
    public static Task<NbdClientPool> ConnectAsync(
        EndPoint endPoint,
        int connections,
        NbdClientOptions? options = null,
        NbdReconnectPolicy? reconnect = null,
        CancellationToken cancellationToken = default)
        => ConnectAsync(ClientTarget.For(endPoint, options ?? new NbdClientOptions()), connections, reconnect, cancellationToken);

    /// <summary>Connects in the host's own way.</summary>
    /// <param name="connect">
    /// Makes a connection: called once for each, and again for each that is replaced. What it returns belongs to the pool.
    /// </param>
    /// <param name="connections">The connections to have if the export is multi-conn, 1 or more.</param>
    /// <param name="reconnect">How to replace connections that are lost; null to leave it.</param>
    /// <param name="timeProvider">The clock of the policy; null for the system's.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <returns>A pool that can make requests.</returns>
    /// <exception cref="NbdClientException">It failed; the exception says why.</exception>
    public static async Task<NbdClientPool> ConnectAsync(
        Func<CancellationToken, Task<NbdClient>> connect,
        int connections,
        NbdReconnectPolicy? reconnect = null,
        TimeProvider? timeProvider = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(connect);
        ArgumentOutOfRangeException.ThrowIfLessThan(connections, 1);
        List<NbdClient> clients = [await connect(cancellationToken).ConfigureAwait(false)];
        try
        {
            while (clients[0].Info.CanMultiConn && clients.Count < connections)
            {
                clients.Add(await connect(cancellationToken).ConfigureAwait(false));
            }
        }
        catch
        {
            foreach (NbdClient client in clients)
            {
                await client.DisposeAsync().ConfigureAwait(false);
            }
            throw;
        }
        return new NbdClientPool([.. clients], connect, reconnect, timeProvider ?? TimeProvider.System);
    }

    /// <summary>Closes every connection as <see cref="NbdClient.DisposeAsync"/> does.</summary>
    public async ValueTask DisposeAsync()
        => await Task.WhenAll(_members.Select(member => member.CloseAsync())).ConfigureAwait(false);

    internal static Task<NbdClientPool> ConnectAsync(
        ClientTarget target, int connections, NbdReconnectPolicy? reconnect, CancellationToken cancellationToken)
    {
        return ConnectAsync(
            token => NbdClient.ConnectAsync(target, token), connections, reconnect, target.Options.TimeProvider, cancellationToken);
    }
}
