using Microsoft.Extensions.Logging;

namespace NbdKit.Tool;

/// <summary>Finds the certificates of the command (nbdkit-tls(1), "Default TLS behaviour").</summary>
/// <remarks>
/// Where nbdkit would go on in plain text although it was told where certificates are, or to verify clients, the command does not
/// start.
/// </remarks>
internal static class TlsSetup
{
    /// <summary>Where certificates are looked for by a privileged process.</summary>
    public const string SystemDirectory = "/etc/pki/nbdkit";

    /// <summary>How the command encrypts, or null if it does not.</summary>
    /// <exception cref="CommandException">There are no certificates where they are needed, or none that can be used.</exception>
    public static NbdServerTls? Load(CommandOptions options, ILogger log)
    {
        if (options.Tls == TlsMode.Off || options.Oldstyle)
        {
            return null;
        }
        string[] places = options.TlsCertificates is { } given
            ? [given]
            : UsualDirectories(
                Environment.IsPrivilegedProcess, Environment.GetFolderPath(Environment.SpecialFolder.UserProfile));
        string? directory = options.TlsCertificates
            ?? Array.Find(places, place => File.Exists(Path.Combine(place, "server-cert.pem")));
        if (directory is null)
        {
            string looked = $"no certificates were found in {string.Join(" and ", places)}";
            if (options.Tls == TlsMode.Require || options.TlsVerifyPeer)
            {
                throw new CommandException(looked + "; say where they are with --tls-certificates");
            }
            if (options.Tls == TlsMode.On)
            {
                log.LogWarning("TLS is not offered: {Reason}", looked);
            }
            return null;
        }
        try
        {
            return NbdServerTls.FromDirectory(directory) with
            {
                IsRequired = options.Tls == TlsMode.Require,
                ClientCertificates = options.TlsVerifyPeer ? NbdClientCertificates.Required : NbdClientCertificates.None,
            };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            throw new CommandException($"cannot use the certificates in {directory}: {e.Message}", e);
        }
    }

    /// <summary>A URI with the parameter that tells clients where certificates are.</summary>
    public static string Uri(string uri, CommandOptions options)
    {
        if (options.Tls != TlsMode.Require || options.TlsCertificates is not { } directory)
        {
            return uri;
        }
        string value = System.Uri.EscapeDataString(directory).Replace("%2F", "/", StringComparison.Ordinal);
        return $"{uri}{(uri.Contains('?', StringComparison.Ordinal) ? '&' : '?')}tls-certificates={value}";
    }

    /// <summary>Where certificates are looked for, in this order.</summary>
    public static string[] UsualDirectories(bool isPrivileged, string home)
        => isPrivileged
            ? [SystemDirectory]
            : [Path.Combine(home, ".pki", "nbdkit"), Path.Combine(home, ".config", "pki", "nbdkit")];
}
