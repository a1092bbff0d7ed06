using System.Security.Authentication;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Upgrading;

/// <summary>One misuse of TLS by a server, and what our client says to it.</summary>
/// <param name="Name">What the server does.</param>
/// <param name="Server">The server, for a version of TLS.</param>
/// <param name="Required">What ends a client that requires TLS; null if it is served.</param>
/// <param name="Allowed">What ends a client that would do without; null if it goes on in plain text, or is served.</param>
internal sealed record ClientCase(
    string Name, Func<SslProtocols, ScriptedServer> Server, NbdClientError? Required, NbdClientError? Allowed)
{
    /// <summary>Whether time must pass.</summary>
    public bool Stalls { get; init; }
}
