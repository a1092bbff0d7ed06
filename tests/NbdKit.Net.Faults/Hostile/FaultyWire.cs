using System.Net;
using System.Net.Sockets;

namespace NbdKit.Faults.Hostile;

/// <summary>A network between clients and a server that does something to what it carries. Each connection goes through it alone.</summary>
internal sealed class FaultyWire : IAsyncDisposable
{
    private readonly EndPoint _server;
    private readonly WireFault _fault;
    private readonly Random _random;
    private readonly Socket _listener = new(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
    private readonly CancellationTokenSource _stop = new();
    private readonly List<Task> _running = [];
    private readonly Lock _lock = new();

    public FaultyWire(EndPoint server, WireFault fault, Random random)
    {
        _server = server;
        _fault = fault;
        _random = random;
        _listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        _listener.Listen(64);
        _running.Add(AcceptAsync());
    }

    /// <summary>Where clients connect to.</summary>
    public EndPoint EndPoint => _listener.LocalEndPoint!;

    public async ValueTask DisposeAsync()
    {
        await _stop.CancelAsync();
        _listener.Dispose();
        Task[] running;
        lock (_lock)
        {
            running = [.. _running];
        }
        await Task.WhenAll(running).WaitAsync(20 * ProcessUse.Patience);
        _stop.Dispose();
    }

    private async Task AcceptAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                Socket client = await _listener.AcceptAsync(_stop.Token);
                lock (_lock)
                {
                    _running.Add(CarryAsync(client, new Random(_random.Next())));
                }
            }
            catch (Exception e) when (e is SocketException or OperationCanceledException or ObjectDisposedException)
            {
                return;
            }
        }
    }

    private async Task CarryAsync(Socket client, Random random)
    {
        bool isUnix = _server.AddressFamily == AddressFamily.Unix;
        using (client)
        using (var server = new Socket(_server.AddressFamily, SocketType.Stream, isUnix ? ProtocolType.Unspecified : ProtocolType.Tcp))
        using (var ended = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token))
        {
            try
            {
                client.NoDelay = true;
                await server.ConnectAsync(_server, ended.Token);
                Task up = PumpAsync(client, server, random.Next(), ended.Token);
                Task down = PumpAsync(server, client, random.Next(), ended.Token);
                Task fate = FateAsync(client, server, random, ended.Token);
                await Task.WhenAny(Task.WhenAll(up, down), fate);
                await ended.CancelAsync();
                await Task.WhenAll(up, down, fate).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
            }
            catch (Exception e) when (e is SocketException or OperationCanceledException)
            {
                // One end was not there any more.
            }
        }
    }

    /// <summary>The end that a connection comes to by itself, if the fault is of that kind.</summary>
    private async Task FateAsync(Socket client, Socket server, Random random, CancellationToken token)
    {
        if (_fault is not (WireFault.Reset or WireFault.ClientHalfClose or WireFault.ServerHalfClose))
        {
            await Task.Delay(Timeout.Infinite, token);
        }
        await Task.Delay(300 + random.Next(1500), token);
        switch (_fault)
        {
            case WireFault.Reset:
                client.LingerState = new LingerOption(true, 0);
                break;
            case WireFault.ClientHalfClose:
                // The server is told that its client will send no more.
                server.Shutdown(SocketShutdown.Send);
                await Task.Delay(500, token);
                break;
            case WireFault.ServerHalfClose:
                client.Shutdown(SocketShutdown.Send);
                await Task.Delay(500, token);
                break;
            default:
                break;
        }
    }

    private async Task PumpAsync(Socket from, Socket to, int seed, CancellationToken token)
    {
        var random = new Random(seed);
        byte[] buffer = new byte[64 << 10];
        long carried = 0;
        try
        {
            while (true)
            {
                int most = _fault switch { WireFault.Bytes => 1, WireFault.Fragments => 1 + random.Next(100), _ => buffer.Length };
                int count = await from.ReceiveAsync(buffer.AsMemory(0, most), SocketFlags.None, token);
                if (_fault == WireFault.BlackHole && carried > 200_000)
                {
                    // Nothing is taken any more and no end is told: whoever waits must give up by itself.
                    await Task.Delay(Timeout.Infinite, token);
                }
                if (count == 0)
                {
                    to.Shutdown(SocketShutdown.Send);
                    return;
                }
                switch (_fault)
                {
                    case WireFault.Slow:
                        await Task.Delay(TimeSpan.FromSeconds(count / 65_536.0), token);
                        break;
                    case WireFault.ShortDelay:
                        await Task.Delay(1 + random.Next(20), token);
                        break;
                    case WireFault.LongDelay:
                        await Task.Delay(100 + random.Next(400), token);
                        break;
                    case WireFault.Coalesced:
                        await Task.Delay(20, token);
                        while (count < buffer.Length && from.Available > 0)
                        {
                            count += await from.ReceiveAsync(buffer.AsMemory(count), SocketFlags.None, token);
                        }
                        break;
                    case WireFault.Pauses when random.Next(50) == 0:
                        await Task.Delay(random.Next(1000), token);
                        break;
                    default:
                        break;
                }
                for (int sent = 0; sent < count;)
                {
                    sent += await to.SendAsync(buffer.AsMemory(sent, count - sent), SocketFlags.None, token);
                }
                carried += count;
            }
        }
        catch (Exception e) when (e is SocketException or ObjectDisposedException or OperationCanceledException)
        {
            // The other side is told by the end of the connection.
        }
    }
}
