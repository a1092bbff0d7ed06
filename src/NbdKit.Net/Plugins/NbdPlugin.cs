using System.Net;
using System.Runtime.CompilerServices;
using NbdKit.Client;
using NbdKit.Plugins.Processes;
using NbdKit.Protocol;

namespace NbdKit.Plugins;

/// <summary>
/// A proxy for another NBD server (nbdkit-nbd-plugin(1)): its exports with their sizes, block sizes, flags, meta contexts and
/// extents, behind whatever filters and transports there are here. Set exactly one of <see cref="Uri"/>, <see cref="EndPoint"/>,
/// <see cref="Command"/>, <see cref="Connect"/> and <see cref="Client"/>.
/// </summary>
/// <remarks>
/// <para>
/// Each client gets <see cref="Connections"/> connections of its own to the other server, opened when it opens its export and closed
/// when it leaves; with <see cref="Shared"/> all use the same ones, which are opened when the chain starts. What the other server
/// does not offer is emulated here where nbdkit does so too: zeroes by writing them, FUA by flushing.
/// </para>
/// <para>
/// With <see cref="Client"/> this makes a layer of a client that the host has connected, to be composed, served, or read through an
/// <see cref="NbdStream"/>. The plugin does not dispose of it.
/// </para>
/// <para>
/// When the connection to the other server is lost, requests fail with EIO; see <see cref="Reconnect"/>. Compared with nbdkit,
/// pre-shared keys are missing, which .NET does not have.
/// </para>
/// </remarks>
public sealed partial class NbdPlugin : INbdPlugin
{
    private NbdClientPool? _shared;
    private ChildServer? _server;

    /// <summary>The NBD URI of the other server's export. Null by default.</summary>
    /// <exception cref="UriFormatException">The value is no NBD URI, or has a part that would be ignored.</exception>
    public string? Uri
    {
        get;
        init
        {
            if (value is not null)
            {
                _ = NbdUri.Parse(value, allowLocalFiles: true);
            }
            field = value;
        }
    }

    /// <summary>The address of the other server; the export is that of <see cref="Options"/>. Null by default.</summary>
    public EndPoint? EndPoint { get; init; }

    /// <summary>
    /// Makes a connection to an export, given its name, in the host's own way. What it returns belongs to the plugin. Null by
    /// default.
    /// </summary>
    public Func<string, CancellationToken, Task<NbdClient>>? Connect { get; init; }

    /// <summary>A client that is connected already, and serves every export name. It stays the host's. Null by default.</summary>
    public NbdClient? Client { get; init; }

    /// <summary>
    /// A server to run, and its arguments: a program that takes a listening socket over as systemd gives it one, such as qemu-nbd or
    /// nbdkit. It starts with the chain and ends with it, and its connections are <see cref="Shared"/>. One that has ended is
    /// started again when <see cref="Reconnect"/> has a connection made anew. No shell reads the arguments. A host that is killed
    /// leaves it behind, unless the server itself ends with its parent or its last client. None by default. Linux only.
    /// </summary>
    public IReadOnlyList<string> Command { get; init; } = [];

    /// <summary>
    /// Whether the server in <see cref="Command"/> talks to its one client on standard input and output, as with
    /// <c>nbdkit -s</c>. False by default.
    /// </summary>
    public bool CommandUsesStandardStreams { get; init; }

    /// <summary>
    /// How to connect, and to which export if no URI says so. Every meta context that the other server lists is asked for, whatever
    /// <see cref="NbdClientOptions.RequestListedMetaContexts"/> says.
    /// </summary>
    public NbdClientOptions Options { get; init; } = new();

    /// <summary>
    /// Whether clients get the export of the other server that they name, and the list of its exports. False by default: all get
    /// the one that is configured.
    /// </summary>
    public bool DynamicExport { get; init; }

    /// <summary>How often to try again, after a second each, if the other server cannot be reached at first. 0 by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public int Retry
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
        }
    }

    /// <summary>Whether all clients use the same connections, opened when the chain starts. False by default.</summary>
    public bool Shared { get; init; }

    /// <summary>The connections for each client, if the export is multi-conn; to others there is one. 1 by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public int Connections
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            field = value;
        }
    } = 1;

    /// <summary>How connections that are lost are replaced; null, the default, if they are not.</summary>
    public NbdReconnectPolicy? Reconnect { get; init; }

    /// <inheritdoc/>
    public string Name => "nbd";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    private bool IsShared => Shared || Client is not null || Command.Count > 0;

    /// <summary>Checks the settings.</summary>
    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">They do not fit together.</exception>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (((object?[])[Uri, EndPoint, Connect, Client, Command.FirstOrDefault()]).Count(way => way is not null) != 1)
        {
            throw new InvalidOperationException(
                "The nbd plugin needs to know one server: set exactly one of Uri, EndPoint, Command, Connect and Client.");
        }
        if (CommandUsesStandardStreams && (Command.Count == 0 || Connections > 1))
        {
            throw new InvalidOperationException("Standard streams go with a command only, and make no more than one connection.");
        }
        if (DynamicExport && IsShared)
        {
            throw new InvalidOperationException("The nbd plugin cannot have both dynamic exports and a shared connection.");
        }
        return default;
    }

    /// <summary>Connects, if the connection is to be shared.</summary>
    /// <inheritdoc/>
    /// <exception cref="NbdException">The other server cannot be reached, or refuses.</exception>
    public async ValueTask StartAsync(CancellationToken cancellationToken)
    {
        if (Client is not null)
        {
            _shared = new NbdClientPool(Client);
        }
        else if (IsShared)
        {
            _server = Command.Count > 0 ? new ChildServer(Command, CommandUsesStandardStreams) : null;
            _shared = await ConnectAsync(null, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <inheritdoc/>
    /// <exception cref="NbdException">The other server cannot be reached, or refuses; the log has the reason.</exception>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        if (_shared is { } shared)
        {
            return new NbdPluginHandle(shared, owned: false);
        }
        NbdClientPool pool = await ConnectAsync(DynamicExport ? context.ExportName : null, cancellationToken)
            .ConfigureAwait(false);
        return new NbdPluginHandle(pool, owned: true);
    }

    /// <summary>Lists the exports of the other server, if they are dynamic; else the default export.</summary>
    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        if (!DynamicExport || Target(null) is not { } target)
        {
            exports.AddDefault();
            return;
        }
        NbdHandshake handshake = await NbdHandshake.ConnectAsync(target, cancellationToken).ConfigureAwait(false);
        await using ConfiguredAsyncDisposable end = handshake.ConfigureAwait(false);
        foreach (NbdExport export in await handshake.ListAsync(cancellationToken).ConfigureAwait(false))
        {
            exports.Add(export.Name, export.Description);
        }
    }

    /// <inheritdoc/>
    public async ValueTask CleanupAsync(CancellationToken cancellationToken)
    {
        NbdClientPool? shared = _shared;
        _shared = null;
        if (shared is not null && Client is null)
        {
            await shared.DisposeAsync().ConfigureAwait(false);
        }
        if (_server is not null)
        {
            await _server.DisposeAsync().ConfigureAwait(false);
        }
    }

    private async Task<NbdClientPool> ConnectAsync(string? exportName, CancellationToken cancellationToken)
    {
        for (int left = Retry; ; left--)
        {
            try
            {
                NbdClientOptions options = Options with { RequestListedMetaContexts = true };
                Func<string, CancellationToken, Task<NbdClient>>? connect =
                    _server is { } server ? (_, token) => server.ConnectAsync(options, token) : Connect;
                return connect is not null
                    ? await NbdClientPool.ConnectAsync(
                        token => connect(exportName ?? Options.ExportName, token),
                        Connections,
                        Reconnect,
                        Options.TimeProvider,
                        cancellationToken).ConfigureAwait(false)
                    : await NbdClientPool.ConnectAsync(Target(exportName)!, Connections, Reconnect, cancellationToken)
                        .ConfigureAwait(false);
            }
            catch (NbdClientException) when (left > 0)
            {
                await Task.Delay(TimeSpan.FromSeconds(1), Options.TimeProvider, cancellationToken).ConfigureAwait(false);
            }
            catch (NbdClientException e)
            {
                NbdError error = e.Error == NbdClientError.ExportUnknown ? NbdError.InvalidArgument : NbdError.IoError;
                string what = _server is null ? $"the other server cannot be used ({e.Error})" : e.Message;
                throw new NbdException(error, $"nbd: {what}", e);
            }
        }
    }

    /// <summary>Whom to connect to, for an export or for the one that is configured; null if the host connects.</summary>
    private ClientTarget? Target(string? exportName)
    {
        if (Connect is not null)
        {
            return null;
        }
        if (exportName is not null)
        {
            WireString.Check(exportName, "export name");
        }
        NbdClientOptions options = Options with { RequestListedMetaContexts = true };
        EndPoint? endPoint = EndPoint;
        if (Uri is not null)
        {
            NbdUri uri = NbdUri.Parse(Uri, allowLocalFiles: true);
            options = uri.Apply(options);
            endPoint = uri.EndPoint;
        }
        return ClientTarget.For(endPoint!, exportName is null ? options : options with { ExportName = exportName });
    }
}
