using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A port for programs that speak TLS and not NBD: whoever connects is taken to the server, past the greeting and
/// NBD_OPT_STARTTLS, and what follows is passed on as it is.
/// </summary>
internal sealed class StartTlsShim : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _end = new();
    private readonly EndPoint _server;
    private readonly Task _accepting;

    public StartTlsShim(EndPoint server)
    {
        _server = server;
        _listener.Start();
        _accepting = AcceptAsync();
    }

    public int Port => ((IPEndPoint)_listener.LocalEndpoint).Port;

    public async ValueTask DisposeAsync()
    {
        await _end.CancelAsync();
        _listener.Stop();
        await _accepting;
    }

    private async Task AcceptAsync()
    {
        var relays = new List<Task>();
        try
        {
            while (true)
            {
                relays.Add(RelayAsync(await _listener.AcceptSocketAsync(_end.Token)));
            }
        }
        catch (OperationCanceledException)
        {
            await Task.WhenAll(relays);
        }
    }

    private async Task RelayAsync(Socket client)
    {
        using var server = new Socket(_server.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            using var near = new NetworkStream(client, ownsSocket: true);
            await server.ConnectAsync(_server, _end.Token);
            using var far = new NetworkStream(server);
            await far.ReadExactlyAsync(new byte[18], _end.Token);
            await far.WriteAsync((byte[])[0, 0, 0, 3, .. WireBytes.Option(Opt.StartTls, [])], _end.Token);
            await far.ReadExactlyAsync(new byte[20], _end.Token);
            Task back = far.CopyToAsync(near, _end.Token);
            await Task.WhenAny(near.CopyToAsync(far, _end.Token), back);
            server.Shutdown(SocketShutdown.Send);
            await back;
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // One side has closed; the other is closed too.
        }
    }
}
