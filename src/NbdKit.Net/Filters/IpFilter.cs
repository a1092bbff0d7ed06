using System.Net;
using System.Net.Sockets;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using NbdKit.Filters.Access;
using NbdKit.Server;

namespace NbdKit.Filters;

/// <summary>Lets clients in by where they come from and who they are (nbdkit-ip-filter(1)).</summary>
/// <remarks>
/// <para>
/// A client that a rule of <see cref="Allow"/> is about is let in; else one that a rule of <see cref="Deny"/> is about is
/// refused; else it is let in. So "only these" takes <c>all</c> in the second list. A client of whose origin nothing is known, one
/// over a plain stream or pipe or a socket of an unknown family, is refused unless a rule lets it in or both lists are empty.
/// </para>
/// <para>The rules:</para>
/// <list type="bullet">
/// <item><c>all</c>, <c>any</c>: every client, also an unknown one.</item>
/// <item><c>allipv4</c>, <c>anyipv4</c>, <c>allipv6</c>, <c>anyipv6</c>, <c>allunix</c>, <c>anyunix</c>, <c>allvsock</c>,
/// <c>anyvsock</c>: every client of that family. An IPv4 address in IPv6 form is IPv4.</item>
/// <item><c>192.0.2.1</c>, <c>192.0.2.0/24</c>, <c>2001:db8::1</c>, <c>2001:db8::/32</c>: an address or range.</item>
/// <item><c>host:NAME</c>: the addresses of a host, looked up each time. A host that cannot be found counts as denied, and not as
/// allowed. Not known to nbdkit.</item>
/// <item><c>pid:N</c>, <c>uid:N</c>, <c>gid:N</c>: a client over a Unix socket, on Linux.</item>
/// <item><c>vsock-cid:N</c>, <c>vsock-port:N</c>: a client over vsock.</item>
/// <item><c>dn:PATTERN</c>, <c>issuer-dn:PATTERN</c>: the subject and the issuer of the client's certificate
/// (<see cref="NbdConnection.PeerSubject"/>). The whole name must match; <c>*</c> stands for any characters, <c>?</c> for one, and
/// a backslash takes away the meaning of what follows it.</item>
/// </list>
/// <para>nbdkit's <c>security:</c> rules are refused.</para>
/// <para>
/// Clients are judged when they connect, and again whenever they list or open an export, so that a change of the rules also
/// reaches those in their handshake; those that have an export open keep it. With a rule about certificates in either list nobody
/// is judged before they list or open, because certificates are not known before.
/// </para>
/// </remarks>
public sealed class IpFilter : INbdFilter
{
    private readonly Lock _lock = new();
    private readonly NofilterFilter _passing = new();
    private ILogger _logger = NullLogger.Instance;
    private PeerRules _rules = new([], []);

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "ip",
        "let clients in by address, process, user or certificate",
        [
            new NbdParameter("allow", "rules, with commas between them, for who is let in (default: none)") { IsRepeatable = true },
            new NbdParameter("deny", "rules for who else is refused (default: none)") { IsRepeatable = true },
        ],
        parameters => new IpFilter
        {
            Allow = [.. parameters.Texts("allow").SelectMany(Split)],
            Deny = [.. parameters.Texts("deny").SelectMany(Split)],
        });

    /// <summary>
    /// The rules for who is let in, one each. May be set at any time and from any thread; holds for clients that are judged
    /// afterwards.
    /// </summary>
    /// <value>Empty by default.</value>
    /// <exception cref="ArgumentException">There is no such rule; nothing is changed then.</exception>
    public IReadOnlyList<string> Allow
    {
        get => Rules.Allow;
        set
        {
            lock (_lock)
            {
                Rules = new PeerRules(value, Rules.Deny);
            }
        }
    }

    /// <summary>The rules for who else is refused; otherwise like <see cref="Allow"/>.</summary>
    /// <value>Empty by default.</value>
    /// <exception cref="ArgumentException">There is no such rule; nothing is changed then.</exception>
    public IReadOnlyList<string> Deny
    {
        get => Rules.Deny;
        set
        {
            lock (_lock)
            {
                Rules = new PeerRules(Rules.Allow, value);
            }
        }
    }

    /// <inheritdoc/>
    public string Name => "ip";

    internal Func<string, CancellationToken, Task<IPAddress[]>> Resolver { get; init; } = Dns.GetHostAddressesAsync;

    private PeerRules Rules
    {
        get => Volatile.Read(ref _rules);
        set => Volatile.Write(ref _rules, value);
    }

    /// <summary>Replaces both lists at once: no client is judged by one old and one new list.</summary>
    /// <param name="allow">As <see cref="Allow"/>.</param>
    /// <param name="deny">As <see cref="Deny"/>.</param>
    /// <exception cref="ArgumentException">There is no such rule; nothing is changed then.</exception>
    public void SetRules(IReadOnlyList<string> allow, IReadOnlyList<string> deny)
    {
        lock (_lock)
        {
            Rules = new PeerRules(allow, deny);
        }
    }

    /// <inheritdoc/>
    public ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(backend);
        _logger = backend.Logger;
        return default;
    }

    /// <inheritdoc/>
    public async ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        ArgumentNullException.ThrowIfNull(connection);
        PeerRules rules = Rules;
        if (!rules.NeedCertificate)
        {
            await RequirePermissionAsync(rules, connection, cancellationToken).ConfigureAwait(false);
        }
        await next.PreconnectAsync(connection, readOnly, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        NbdBackend next,
        ExportList exports,
        bool readOnly,
        NbdConnection? connection,
        CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        await RequirePermissionAsync(Rules, connection, cancellationToken).ConfigureAwait(false);
        await next.ListExportsAsync(exports, readOnly, connection, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        await RequirePermissionAsync(Rules, connection, cancellationToken).ConfigureAwait(false);
        return await next.DefaultExportAsync(readOnly, connection, cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await RequirePermissionAsync(Rules, context.Connection, cancellationToken).ConfigureAwait(false);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return _passing;
    }

    /// <summary>Splits a list at its commas. A name in a certificate has commas of its own, so it is the last of its list.</summary>
    private static IEnumerable<string> Split(string list)
    {
        while (true)
        {
            int comma = list.IndexOf(',');
            if (comma < 0
                || list.StartsWith("dn:", StringComparison.Ordinal)
                || list.StartsWith("issuer-dn:", StringComparison.Ordinal))
            {
                yield return list;
                yield break;
            }
            yield return list[..comma];
            list = list[(comma + 1)..];
        }
    }

    private async ValueTask RequirePermissionAsync(
        PeerRules rules, NbdConnection? connection, CancellationToken cancellationToken)
    {
        // Without a connection it is the host itself.
        if (connection is not null
            && !await rules.PermitAsync(connection, host => IsAtAsync(connection, host, cancellationToken)).ConfigureAwait(false))
        {
            throw new NbdException(NbdError.PermissionDenied, "this client is not allowed");
        }
    }

    private async ValueTask<bool?> IsAtAsync(NbdConnection connection, string host, CancellationToken cancellationToken)
    {
        if (PeerRule.AddressOf(connection) is not { } address)
        {
            return false;
        }
        try
        {
            IPAddress[] found = await Resolver(host, cancellationToken).ConfigureAwait(false);
            // A scope is no part of an address.
            return Array.Exists(
                found, a => AddressRange.Normalize(a).GetAddressBytes().AsSpan().SequenceEqual(address.GetAddressBytes()));
        }
        catch (SocketException e)
        {
            Log.HostNotFound(_logger, host, e);
            return null;
        }
    }
}
