namespace NbdKit.Faults.Upgrading;

/// <summary>Whether a server has TLS, and whether it insists on it (NOTLS, SELECTIVETLS, FORCEDTLS).</summary>
internal enum TlsMode
{
    None,
    Offered,
    Required,
}
