namespace NbdKit.Tool;

/// <summary>The URI that a client on this machine connects to.</summary>
internal static class ServerUri
{
    /// <summary>The URI as text, with "localhost" for an address that means all addresses.</summary>
    public static string Connectable(Uri uri)
        => uri.Host is "0.0.0.0" or "[::]" ? new UriBuilder(uri) { Host = "localhost" }.Uri.AbsoluteUri : uri.AbsoluteUri;
}
