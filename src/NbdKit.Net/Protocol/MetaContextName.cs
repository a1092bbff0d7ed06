namespace NbdKit.Protocol;

/// <summary>The names of meta contexts: a namespace, a colon, and what the namespace defines ("Metadata querying").</summary>
internal static class MetaContextName
{
    /// <summary>Refuses a name of ours that must not travel.</summary>
    public static void Check(string name)
    {
        WireString.Check(name, "name of a meta context");
        if (!HasNamespace(name))
        {
            throw new ArgumentException(
                $"'{name}' is no name of a meta context: it must begin with base:, nbd-server:, qemu: or x-NAMESPACE:.");
        }
    }

    /// <summary>Whether a name begins with a namespace that there is.</summary>
    public static bool HasNamespace(string name)
    {
        int colon = name.IndexOf(':', StringComparison.Ordinal);
        string space = colon > 0 ? name[..colon] : "";
        return space is "base" or "nbd-server" or "qemu" || space.StartsWith("x-", StringComparison.Ordinal);
    }

    /// <summary>
    /// Whether a query selects a context. In a list a query that ends with a colon selects all that begin with it.
    /// </summary>
    public static bool Matches(string query, string name, bool isList)
        => name == query || (isList && query.EndsWith(':') && name.StartsWith(query, StringComparison.Ordinal));
}
