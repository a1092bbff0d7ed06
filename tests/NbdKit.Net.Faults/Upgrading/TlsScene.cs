using System.Collections.Concurrent;
using System.IO.Pipelines;
using System.Net.Security;
using System.Security.Authentication;
using System.Security.Cryptography.X509Certificates;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Upgrading;

/// <summary>A server that knows its clients by their certificates, for one case.</summary>
internal sealed class TlsScene : IAsyncDisposable
{
    private readonly TestPlugin _plugin = new();
    private readonly ConcurrentDictionary<NbdConnection, int> _ends = [];
    private readonly NbdServer _server;
    private int _connections;
    private int _inPlain;

    public TlsScene(TlsMode mode, SslProtocols version)
    {
        Mode = mode;
        Version = version;
        _plugin.OnOpen = (context, _) =>
        {
            _inPlain += context.IsTls ? 0 : 1;
            return default;
        };
        _server = new NbdServer(NbdBackend.Compose(_plugin), new NbdServerOptions
        {
            TimeProvider = Time,
            Disconnected = (connection, _) => _ends.AddOrUpdate(connection, 1, (_, count) => count + 1),
            Tls = mode == TlsMode.None ? null : new NbdServerTls(TestCertificates.Server)
            {
                IsRequired = mode == TlsMode.Required,
                ClientCertificates = NbdClientCertificates.Required,
                ClientAuthorities = TestCertificates.Authorities,
                ClientRevocationLists = [TestCertificates.Revoke(Revoked)],
            },
        });
    }

    /// <summary>A client's certificate that was taken back.</summary>
    public static X509Certificate2 Revoked { get; } = TestCertificates.Issue(
        TestCertificates.Authority, "CN=revoked", TestCertificates.ClientUsage);

    public TlsMode Mode { get; }

    public SslProtocols Version { get; }

    public bool HasTls => Mode != TlsMode.None;

    public FakeTimeProvider Time { get; } = new();

    /// <summary>What a client trusts and shows, in the version of the scene.</summary>
    public SslClientAuthenticationOptions Shows(X509Certificate2? certificate) => TestCertificates.Client(certificate, Version);

    /// <summary>What a known client shows.</summary>
    public SslClientAuthenticationOptions Alice => Shows(TestCertificates.Alice);

    public ValueTask StartAsync() => _server.StartAsync();

    /// <summary>Connects a client that has answered the greeting.</summary>
    /// <param name="byByte">Whether the server receives what comes byte by byte.</param>
    public async Task<TlsAttempt> HaggleAsync(bool byByte = false)
    {
        var pipes = new PipePair(byByte ? PipePair.EveryByte : null);
        var tap = new TapWriter(pipes.Server.Output);
        var flights = new FlightWriter(pipes.Client.Output);
        _connections++;
        var client = new WireClient(
            new Ends(pipes.Client.Input, flights), _server.ServeAsync(new Ends(pipes.Server.Input, tap)));
        await client.GreetAsync();
        return new TlsAttempt(this, client, tap, flights);
    }

    /// <summary>Connects a client that is served: inside TLS where there is any.</summary>
    public async Task<TlsAttempt> ServedAsync(SslClientAuthenticationOptions? options = null, bool byByte = false)
    {
        TlsAttempt attempt = await HaggleAsync(byByte);
        await attempt.EnterAsync(options ?? Alice);
        return attempt;
    }

    /// <summary>A client that does it right is served, and the server has said once of each connection that it ended.</summary>
    public async Task CheckAsync()
    {
        TlsAttempt polite = await ServedAsync();
        await polite.LeaveAsync();
        await _server.StopAsync();
        MutationException.Require(
            _ends.Count == _connections && _ends.Values.All(count => count == 1), $"{_ends.Count} of {_connections} connections ended");
        MutationException.Require(Mode != TlsMode.Required || _inPlain == 0, "an export was opened in plain text");
        MutationException.Require(_plugin.Opened == _plugin.Closed, $"{_plugin.Opened} contexts were opened, {_plugin.Closed} closed");
    }

    /// <summary>Whether the plugin was asked for anything.</summary>
    public void CheckNothingOpened() => MutationException.Require(!HasTls || _plugin.Opened == 0, "the plugin was opened");

    /// <summary>The disk is served.</summary>
    public Task CheckAliveAsync(WireClient client) => client.ExpectAliveAsync(_plugin.Data);

    public async ValueTask DisposeAsync() => await _server.DisposeAsync();

    private sealed record Ends(PipeReader Input, PipeWriter Output) : IDuplexPipe;
}
