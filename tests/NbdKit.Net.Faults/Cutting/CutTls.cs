using System.Security.Authentication;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Cutting;

/// <summary>NBD_OPT_STARTTLS, then a session within TLS, with the client or the server stopping at any byte.</summary>
internal sealed class CutTls : IAsyncDisposable
{
    private readonly FakeTimeProvider _time = new();
    private readonly MutantPlugin _plugin = new();
    private readonly NbdServer _server;

    public CutTls()
        => _server = new NbdServer(NbdBackend.Compose(_plugin), new NbdServerOptions
        {
            Tls = new NbdServerTls(TestCertificates.Server),
            TimeProvider = _time,
            // Less than the client has patience.
            StallTimeout = TimeSpan.FromSeconds(10),
        });

    /// <summary>Runs a session whose client, or server, stops; how many bytes that side sent, or would have.</summary>
    /// <param name="at">The bytes after which it stops.</param>
    /// <param name="kind">How.</param>
    /// <param name="client">Whether the client stops.</param>
    /// <param name="wholly">Whether the session has requests; else it ends when the export is open.</param>
    /// <param name="place">Where it stops, in place of <paramref name="at"/>.</param>
    public async Task<long> RunAsync(long at, CutKind kind, bool client, bool wholly, RecordPlace? place = null)
    {
        var pipes = new PipePair();
        var stopping = new StoppingPipe(client ? pipes.Client : pipes.Server, at, kind, place);
        Task<NbdDisconnect> serving = _server.ServeAsync(client ? pipes.Server : stopping);
        Task talking = TalkAsync(client ? stopping : pipes.Client, wholly);
        if (kind == CutKind.Stall && await Task.WhenAny(stopping.Stopped, talking) == stopping.Stopped)
        {
            // Both sides have a limit for the handshake.
            await _time.AdvanceUntilAsync(client ? serving : talking);
        }
        await talking.Soon();
        await pipes.Client.Output.CompleteAsync();
        await pipes.Client.Input.CompleteAsync();
        NbdDisconnect end = await serving.Soon();
        MutationException.Require(end.Reason != NbdDisconnectReason.Faulted, $"the server failed: {end}");
        MutationException.Require(
            kind != CutKind.Stall || !client || !stopping.Stopped.IsCompleted || end.Reason == NbdDisconnectReason.Timeout, $"the end was {end}");
        MutationException.Require(_plugin.Open == 0, $"{_plugin.Open} contexts are open");
        return stopping.Position;
    }

    public async ValueTask DisposeAsync() => await _server.DisposeAsync();

    private async Task TalkAsync(System.IO.Pipelines.IDuplexPipe pipe, bool wholly)
    {
        var options = new NbdClientOptions
        {
            Tls = NbdTlsPolicy.Require,
            TlsAuthentication = TestCertificates.Client(),
            TimeProvider = _time,
            HandshakeTimeout = TimeSpan.FromSeconds(15),
            RequestTimeout = TimeSpan.FromSeconds(15),
        };
        try
        {
            await using NbdClient client = await NbdClient.ConnectAsync(pipe, options);
            if (wholly)
            {
                await client.ReadAsync(new byte[512], 0);
                await client.WriteAsync(new byte[512], 512);
                await client.FlushAsync();
            }
        }
        catch (NbdClientException e) when (e.Error is NbdClientError.ConnectionLost or NbdClientError.TlsFailed or NbdClientError.Timeout)
        {
            // As it must be.
        }
        catch (AuthenticationException e)
        {
            throw new MutationException("an exception of the TLS layer reached the caller", e);
        }
    }
}
