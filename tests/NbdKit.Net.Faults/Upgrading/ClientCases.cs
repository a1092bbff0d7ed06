using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Upgrading;

/// <summary>The mirror: servers, or whoever is in between, that misuse TLS.</summary>
internal static class ClientCases
{
    private static readonly byte[] Ack = ScriptedServer.Reply(Opt.StartTls, Rep.Ack);

    private static readonly byte[] Forged =
    [
        .. ScriptedServer.Reply(Opt.ExtendedHeaders, Rep.Ack), .. ScriptedServer.Reply(Opt.StructuredReply, Rep.Ack),
    ];

    public static ClientCase[] All { get; } =
    [
        .. new[] { Rep.Unsup, Rep.Policy, Rep.Invalid, Rep.Platform, Rep.TlsRequired }.Select(error => new ClientCase(
            $"downgrade: STARTTLS refused with 0x{error:x}",
            _ => new ScriptedServer().Answer(Opt.StartTls, ScriptedServer.Error(Opt.StartTls, error, "no")),
            NbdClientError.TlsUnavailable,
            null)),
        new(
            "downgrade: no options",
            _ => new ScriptedServer { HandshakeFlags = 0 }.Answer(
                Opt.ExportName, new WireBytes().U64(ScriptedServer.Size).U16(ScriptedServer.Flags).Zeroes(124).ToArray()),
            NbdClientError.TlsUnavailable,
            null),
        Acked("forged replies behind the ACK, then TLS", _ => Encrypting(SslProtocols.None), [.. Ack, .. Forged]),
        Acked("forged replies behind the ACK", _ => After([]), [.. Ack, .. Forged]),
        Acked("the ACK twice", _ => After([]), [.. Ack, .. Ack]),
        Acked("plain text after the ACK", _ => After(Forged), Ack),
        Acked("garbage after the ACK", _ => After([.. Enumerable.Repeat((byte)0x55, 4096)]), Ack),
        Acked("an alert after the ACK", _ => After([21, 3, 3, 0, 2, 2, 40]), Ack),
        Acked("application data after the ACK", _ => After([23, 3, 3, 0, 4, 1, 2, 3, 4]), Ack),
        Acked("an oversized record", _ => After([22, 3, 3, 0xff, 0xff, .. new byte[0xffff]]), Ack),
        Acked("a ServerHello of SSL 3", _ => After(Hello(0)), Ack),
        Acked("a ServerHello of TLS 1.0", _ => After(Hello(1)), Ack),
        Acked("a ServerHello of TLS 1.1", _ => After(Hello(2)), Ack),
        Acked("the end after the ACK", _ => After([], ends: true), Ack),
        Acked("the end inside a record", _ => After([22, 3, 3, 0, 100, 2], ends: true), Ack),
        Acked("silence after the ACK", _ => After([]), Ack) with
        {
            Required = NbdClientError.Timeout,
            Allowed = NbdClientError.Timeout,
            Stalls = true,
        },
        Acked("an ACK with data", _ => new ScriptedServer(), ScriptedServer.Reply(Opt.StartTls, Rep.Ack, 1)) with
        {
            Required = NbdClientError.ProtocolViolation,
            Allowed = NbdClientError.ProtocolViolation,
        },
        Acked("an ACK of another option", _ => new ScriptedServer(), ScriptedServer.Reply(Opt.StructuredReply, Rep.Ack)) with
        {
            Required = NbdClientError.ProtocolViolation,
            Allowed = NbdClientError.ProtocolViolation,
        },
        .. ServerCertificates.Bad.Select(bad => Acked(
            $"a certificate that is wrong: {bad.Key}", version => Encrypting(version, bad.Value), Ack)),
        Acked("nothing wrong", version => Encrypting(version), Ack) with { Required = null, Allowed = null },
    ];

    /// <summary>A server that encrypts, and takes the end for what it is.</summary>
    public static ScriptedServer Encrypting(SslProtocols version, X509Certificate2? certificate = null)
    {
        var server = new ScriptedServer
        {
            Tls = async stream =>
            {
                var tls = new SslStream(stream);
                try
                {
                    await tls.AuthenticateAsServerAsync(new SslServerAuthenticationOptions
                    {
                        ServerCertificate = certificate ?? ServerCertificates.Good,
                        EnabledSslProtocols = version,
                    });
                    return tls;
                }
                catch (Exception e) when (e is AuthenticationException or IOException)
                {
                    await tls.DisposeAsync();
                    return null;
                }
            },
        };
        return server.Answer(Opt.StartTls, Ack);
    }

    private static ClientCase Acked(string name, Func<SslProtocols, ScriptedServer> server, byte[] answer)
        => new(name, version => server(version).Answer(Opt.StartTls, answer), NbdClientError.TlsFailed, NbdClientError.TlsFailed);

    /// <summary>A server that sends something in place of a handshake, and sees what the client sends until it leaves.</summary>
    private static ScriptedServer After(byte[] bytes, bool ends = false) => new()
    {
        Tls = async stream =>
        {
            await stream.WriteAsync(bytes);
            if (ends)
            {
                await stream.DisposeAsync();
                return null;
            }
            var said = new MemoryStream();
            await stream.CopyToAsync(said);
            Records.Check(said.ToArray(), "client");
            return null;
        },
    };

    // record: type 8, version 16, length 16; message: type 8, length 24; version 16, random 256, session, suite, compression
    private static byte[] Hello(byte minor)
        => [22, 3, minor, 0, 42, 2, 0, 0, 38, 3, minor, .. Enumerable.Repeat((byte)7, 32), 0, 0xc0, 0x13, 0];
}
