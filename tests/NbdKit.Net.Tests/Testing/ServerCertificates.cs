using System.Net.Security;
using System.Security.Cryptography.X509Certificates;

namespace NbdKit.Tests.Testing;

/// <summary>The good and bad certificates that a server may show.</summary>
internal static class ServerCertificates
{
    private const string Subject = "CN=NBD server";

    private static readonly string[] Names = ["nbd.example", "localhost", "127.0.0.1"];

    /// <summary>For nbd.example, localhost and 127.0.0.1.</summary>
    public static X509Certificate2 Good { get; } = Issue(Names);

    /// <summary>What a server may show that a client must not believe, by what is wrong with it.</summary>
    public static IReadOnlyDictionary<string, X509Certificate2> Bad { get; } = new Dictionary<string, X509Certificate2>
    {
        ["another host"] = Issue(["other.example"]),
        ["an address in place of the name"] = Issue(["192.0.2.1"]),
        ["no name at all"] = Issue([]),
        ["expired"] = Issue(Names, from: -9, to: -1),
        ["not yet valid"] = Issue(Names, from: 1),
        ["of another authority"] = TestCertificates.Issue(TestCertificates.Stranger, Subject, TestCertificates.ServerUsage, Names),
        ["self-signed"] = TestCertificates.Root("CN=nbd.example", ["nbd.example"]),
        ["for clients only"] = Issue(Names, TestCertificates.ClientUsage),
    };

    /// <summary>A client's own.</summary>
    public static X509Certificate2 Client { get; } = TestCertificates.Alice;

    /// <summary>Trusts the authority and no other.</summary>
    public static SslClientAuthenticationOptions Trusting(string? host = "nbd.example", X509Certificate2? client = null)
    {
        SslClientAuthenticationOptions options = TestCertificates.Client(client);
        options.TargetHost = host;
        return options;
    }

    /// <summary>Writes a directory as nbdkit and libnbd have them: the authority, the server, and the client if need be.</summary>
    public static void Write(string directory, bool withClient)
    {
        TestCertificates.Write(directory, withClient ? Client : null);
        TestCertificates.Write(directory, "server", Good);
    }

    private static X509Certificate2 Issue(string[] names, string usage = TestCertificates.ServerUsage, int from = -5, int to = 25)
        => TestCertificates.Issue(TestCertificates.Authority, Subject, usage, names, from, to);
}
