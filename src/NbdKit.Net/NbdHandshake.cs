using NbdKit.Client;
using NbdKit.Protocol;

namespace NbdKit;

/// <summary>
/// A connection to a server on which no export is opened yet: it can be asked what exports there are, and what they are
/// ("option haggling" in the protocol text, "opt mode" of libnbd).
/// </summary>
/// <remarks>
/// <para>
/// For one call at a time. <see cref="NbdClientOptions.HandshakeTimeout"/> is the limit of each call. A call that is cancelled or
/// takes too long ends the connection, as does whatever breaks the protocol; then every later call fails with the same
/// <see cref="NbdClientException.Error"/>.
/// </para>
/// <para>
/// What the server refuses (<see cref="NbdClientError.ExportUnknown"/>, <see cref="NbdClientError.Refused"/>,
/// <see cref="NbdClientError.Unsupported"/>, <see cref="NbdClientError.TlsRequired"/>) fails that call alone.
/// </para>
/// </remarks>
public sealed partial class NbdHandshake : IAsyncDisposable
{
    private readonly ClientHandshake _handshake;
    private int _busy;
    private bool _left;

    private NbdHandshake(ClientHandshake handshake) => _handshake = handshake;

    /// <summary>Whether the connection is encrypted.</summary>
    public bool IsTls => _handshake.IsTls;

    /// <summary>
    /// Whether the server knows options (fixed newstyle negotiation). If not, it can only be told the name of an export to open.
    /// </summary>
    public bool IsFixedNewstyle => _handshake.IsFixedNewstyle;

    /// <summary>Whether the server agreed to structured replies, or to extended headers, which include them.</summary>
    public bool HasStructuredReplies => _handshake.StructuredReplies || _handshake.ExtendedHeaders;

    /// <summary>Whether the server agreed to extended headers.</summary>
    public bool HasExtendedHeaders => _handshake.ExtendedHeaders;

    /// <summary>Lists the exports (NBD_OPT_LIST).</summary>
    /// <param name="cancellationToken">Ends the connection.</param>
    /// <returns>The exports in the order in which the server named them, at most <see cref="ExportList.MaximumCount"/>.</returns>
    /// <exception cref="NbdClientException">The server refused, or the connection ended.</exception>
    /// <exception cref="InvalidOperationException">Another call is under way.</exception>
    /// <exception cref="ObjectDisposedException">The handshake was left.</exception>
    public Task<IReadOnlyList<NbdExport>> ListAsync(CancellationToken cancellationToken = default)
        => OneAtATimeAsync(() => _handshake.ListAsync(cancellationToken));

    /// <summary>Asks what an export is and can do, without opening it (NBD_OPT_INFO).</summary>
    /// <remarks>
    /// What is emulated by the server and what is native looks the same from here: it is <see cref="Support.Native"/>. The meta
    /// contexts are those that the server names; without <c>base:allocation</c> among them there are no extents.
    /// </remarks>
    /// <param name="exportName">The export; "" for the default export.</param>
    /// <param name="cancellationToken">Ends the connection.</param>
    /// <returns>The export.</returns>
    /// <exception cref="ArgumentException">The name breaks the protocol's rules for strings.</exception>
    /// <exception cref="NbdClientException">The server refused, or the connection ended.</exception>
    /// <exception cref="InvalidOperationException">Another call is under way.</exception>
    /// <exception cref="ObjectDisposedException">The handshake was left.</exception>
    public Task<NbdExportInfo> InfoAsync(string exportName, CancellationToken cancellationToken = default)
    {
        WireString.Check(exportName, "export name");
        return OneAtATimeAsync(async () =>
        {
            InfoReplies infos = await _handshake.InfoAsync(exportName, cancellationToken).ConfigureAwait(false);
            IReadOnlyList<string> contexts = [];
            if (HasStructuredReplies)
            {
                try
                {
                    contexts = await _handshake.ListMetaContextsAsync(exportName, [], cancellationToken).ConfigureAwait(false);
                }
                catch (NbdClientException e) when (e.Error is NbdClientError.Unsupported or NbdClientError.Refused)
                {
                    // A server that has none may not know how to list them.
                }
            }
            return ClientExportInfo.From(infos, contexts);
        });
    }

    /// <summary>Lists the meta contexts that an export has (NBD_OPT_LIST_META_CONTEXT).</summary>
    /// <param name="exportName">The export; "" for the default export.</param>
    /// <param name="queries">
    /// What to look for, such as <c>base:allocation</c> or <c>qemu:</c>; null or empty for all that there are.
    /// </param>
    /// <param name="cancellationToken">Ends the connection.</param>
    /// <returns>The names, at most 1,024.</returns>
    /// <exception cref="ArgumentException">A string breaks the protocol's rules.</exception>
    /// <exception cref="NbdClientException">The server refused, or the connection ended.</exception>
    /// <exception cref="InvalidOperationException">Another call is under way.</exception>
    /// <exception cref="ObjectDisposedException">The handshake was left.</exception>
    public Task<IReadOnlyList<string>> ListMetaContextsAsync(
        string exportName, IReadOnlyList<string>? queries = null, CancellationToken cancellationToken = default)
    {
        WireString.Check(exportName, "export name");
        foreach (string query in queries ?? [])
        {
            WireString.Check(query, "meta context");
        }
        return OneAtATimeAsync(() => _handshake.ListMetaContextsAsync(exportName, queries ?? [], cancellationToken));
    }

    /// <summary>
    /// Leaves in good order (NBD_OPT_ABORT) and closes the connection; cuts it if a call is under way, which fails then. Waits
    /// for the server's answer for a second at most, and does not mind if there is none.
    /// </summary>
    public async Task AbortAsync()
    {
        if (_left)
        {
            return;
        }
        _left = true;
        if (Interlocked.Exchange(ref _busy, 1) != 0)
        {
            _handshake.Cut();
            return;
        }
        await _handshake.LeaveAsync().ConfigureAwait(false);
    }

    /// <summary>Leaves, as <see cref="AbortAsync"/> does.</summary>
    public async ValueTask DisposeAsync() => await AbortAsync().ConfigureAwait(false);

    /// <summary>Opens an export. The connection is the session's then; what the server refuses can be followed by another call.</summary>
    internal Task<ClientSession> GoAsync(string exportName, CancellationToken cancellationToken)
    {
        WireString.Check(exportName, "export name");
        return OneAtATimeAsync(async () =>
        {
            ClientSession session = await _handshake.GoAsync(exportName, cancellationToken).ConfigureAwait(false);
            _left = true;
            return session;
        });
    }

    private async Task<T> OneAtATimeAsync<T>(Func<Task<T>> call)
    {
        ObjectDisposedException.ThrowIf(_left, this);
        if (Interlocked.Exchange(ref _busy, 1) != 0)
        {
            throw new InvalidOperationException("Another call of this handshake is under way.");
        }
        try
        {
            return await call().ConfigureAwait(false);
        }
        finally
        {
            Volatile.Write(ref _busy, 0);
        }
    }
}
