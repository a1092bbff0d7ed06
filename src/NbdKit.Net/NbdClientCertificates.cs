namespace NbdKit;

/// <summary>Whether a server asks its clients for certificates.</summary>
public enum NbdClientCertificates
{
    /// <summary>It does not ask.</summary>
    None,

    /// <summary>It asks. A client without a certificate is served; one whose certificate is not valid is not.</summary>
    Optional,

    /// <summary>It asks, and serves nobody without a valid certificate.</summary>
    Required,
}
