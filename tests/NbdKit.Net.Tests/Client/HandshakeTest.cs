using NbdKit.Client;
using NbdKit.Tests.Testing;

namespace NbdKit.Tests.Client;

/// <summary>A test of the client's handshake against a scripted server.</summary>
public abstract class HandshakeTest
{
    private protected static Task<ClientSession> ConnectAsync(
        ScriptedServer server, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => ClientConnector.ConnectAsync(server.Start().Client, options ?? new NbdClientOptions(), cancellationToken).Soon();

    private protected static Task<NbdHandshake> BeginAsync(
        ScriptedServer server, NbdClientOptions? options = null, CancellationToken cancellationToken = default)
        => NbdHandshake.ConnectAsync(server.Start().Client, options, cancellationToken).Soon();

    /// <summary>Connects, which must fail in this way, and must have closed the connection.</summary>
    private protected static async Task<NbdClientException> FailAsync(
        ScriptedServer server, NbdClientError error, NbdClientOptions? options = null)
    {
        NbdClientException failure = Assert.ThrowsAsync<NbdClientException>(() => ConnectAsync(server, options))!;
        Assert.That(failure.Error, Is.EqualTo(error), failure.ToString());
        await server.Ended.Soon();
        return failure;
    }
}
