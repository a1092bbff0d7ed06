namespace NbdKit.Filters.Access;

/// <summary>The two lists of the ip filter at one moment. Never changes.</summary>
internal sealed class PeerRules
{
    private readonly PeerRule[] _allow;
    private readonly PeerRule[] _deny;

    public PeerRules(IReadOnlyList<string> allow, IReadOnlyList<string> deny)
    {
        _allow = Parse("allow", allow);
        _deny = Parse("deny", deny);
        Allow = [.. _allow.Select(rule => rule.Text)];
        Deny = [.. _deny.Select(rule => rule.Text)];
        NeedCertificate = _allow.Concat(_deny).Any(rule => rule.NeedsCertificate);
    }

    public IReadOnlyList<string> Allow { get; }

    public IReadOnlyList<string> Deny { get; }

    /// <summary>Whether any rule takes the client's certificate.</summary>
    public bool NeedCertificate { get; }

    /// <summary>Whether a client may connect; looks the hosts up only if it comes to that.</summary>
    /// <param name="connection">The client.</param>
    /// <param name="lookUp">
    /// Whether the client's address is one of a host's; null if that cannot be found out. Such a host is not allowed by its name,
    /// and is denied by it.
    /// </param>
    public async ValueTask<bool> PermitAsync(NbdConnection connection, Func<string, ValueTask<bool?>> lookUp)
    {
        foreach (PeerRule rule in _allow)
        {
            if (rule.Host is null ? rule.Matches(connection) : await lookUp(rule.Host).ConfigureAwait(false) == true)
            {
                return true;
            }
        }
        foreach (PeerRule rule in _deny)
        {
            if (rule.Host is null ? rule.Matches(connection) : await lookUp(rule.Host).ConfigureAwait(false) != false)
            {
                return false;
            }
        }
        // Whoever cannot be told from those that are denied is one of them.
        return PeerRule.IsKnown(connection) || (_allow.Length == 0 && _deny.Length == 0);
    }

    private static PeerRule[] Parse(string list, IReadOnlyList<string> rules)
    {
        ArgumentNullException.ThrowIfNull(rules, list);
        try
        {
            return [.. rules.Select(PeerRule.Parse)];
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"ip: {list}: {e.Message}", list, e);
        }
    }
}
