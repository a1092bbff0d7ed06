namespace NbdKit;

/// <summary>Whether a client encrypts its connection (NBD_OPT_STARTTLS).</summary>
public enum NbdTlsPolicy
{
    /// <summary>Never. A server that requires TLS refuses the client.</summary>
    Off,

    /// <summary>
    /// If the server offers it. Whoever can change what travels can make it plain text without being noticed: use
    /// <see cref="Require"/> on every network that is not trusted.
    /// </summary>
    Allow,

    /// <summary>Always: nothing but the wish for TLS travels in plain text, and connecting fails without it.</summary>
    Require,
}
