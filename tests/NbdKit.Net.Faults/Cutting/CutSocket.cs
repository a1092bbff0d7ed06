using System.Collections.Concurrent;
using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Cutting;

/// <summary>Our server on TCP, whose clients stop at any byte, many at a time, with a bystander that reads meanwhile.</summary>
internal sealed class CutSocket : IAsyncDisposable
{
    private const int Size = 64 << 10;
    private const int MostClients = 200;

    private readonly MutantPlugin _plugin = new();
    private readonly ConcurrentDictionary<EndPoint, TaskCompletionSource<NbdDisconnect>> _ends = [];
    private readonly NbdServer _server;
    private Bystander? _bystander;

    private CutSocket(TimeSpan limit)
        => _server = new NbdServer(NbdBackend.Compose(_plugin), new NbdServerOptions
        {
            EndPoints = [new IPEndPoint(IPAddress.Loopback, 0)],
            MaxConnections = MostClients,
            HandshakeTimeout = limit,
            StallTimeout = limit,
            Disconnected = (connection, end) => EndOf(connection.Peer.EndPoint!).TrySetResult(end),
        });

    /// <summary>Starts a server with a limit for its clients.</summary>
    public static async Task<CutSocket> StartAsync(TimeSpan limit)
    {
        var sockets = new CutSocket(limit);
        await sockets._server.StartAsync();
        byte[] expected = new byte[Size];
        for (int i = 0; i < Size; i++)
        {
            expected[i] = MutantPlugin.At((ulong)i);
        }
        sockets._bystander = new Bystander(await NbdClient.ConnectAsync(sockets._server.EndPoints[0]), expected);
        return sockets;
    }

    public async Task RunAsync(int form, int at, CutKind kind)
    {
        (byte[] bytes, int handshake) = CutSession.OfClient(form);
        var whole = Stopwatch.StartNew();
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync(_server.EndPoints[0]);
        Task<NbdDisconnect> ended = EndOf(socket.LocalEndPoint!).Task;
        await socket.SendAsync(bytes.AsMemory(0, at));
        var silent = Stopwatch.StartNew();
        if (kind == CutKind.Reset)
        {
            socket.LingerState = new LingerOption(true, 0);
            socket.Close();
            CheckEnd(await ended.Soon(), NbdDisconnectReason.ClientDone, NbdDisconnectReason.ClientGone, NbdDisconnectReason.ConnectionLost);
            return;
        }
        bool isIdle = CutSession.IsBetweenRequests(form, at, handshake);
        Task<byte[]> reading = ReadToEndAsync(socket);
        if (kind == CutKind.Stall && isIdle)
        {
            await Task.WhenAny(ended, Task.Delay(1.5 * CutLimits.Short));
            MutationException.Require(!ended.IsCompleted, "a client that does nothing was cut off");
        }
        if (kind == CutKind.Finish || isIdle)
        {
            socket.Shutdown(SocketShutdown.Send);
        }
        NbdDisconnect end = await ended.Soon();
        if (kind == CutKind.Stall && !isIdle && at < bytes.Length)
        {
            CutLimits.Check(whole.Elapsed, silent.Elapsed);
            CheckEnd(end, NbdDisconnectReason.Timeout);
        }
        else
        {
            CheckEnd(end, NbdDisconnectReason.ClientDone, NbdDisconnectReason.ClientGone, NbdDisconnectReason.ConnectionLost);
        }
        new ServerJudge(bytes[..at], await reading.Soon(), new ServerRules(3, false, 32 << 20, 128 << 10)).Check(end.Reason);
    }

    /// <summary>Fails unless every context that was opened is closed; what the bystander saw.</summary>
    public async Task<string> EndAsync()
    {
        // One is the bystander's.
        MutationException.Require(_plugin.Open == 1, $"{_plugin.Open} contexts are open");
        (int count, double p99, double longest) = await _bystander!.EndAsync();
        await _bystander.DisposeAsync();
        _bystander = null;
        await _server.StopAsync();
        MutationException.Require(_plugin.Open == 0, $"{_plugin.Open} contexts are open after the end");
        return FormattableString.Invariant($"a bystander was served {count} times, 99 % in {p99:F1} ms, all in {longest:F1} ms");
    }

    public async ValueTask DisposeAsync()
    {
        if (_bystander is not null)
        {
            await _bystander.DisposeAsync();
        }
        await _server.DisposeAsync();
    }

    private static async Task<byte[]> ReadToEndAsync(Socket socket)
    {
        var output = new MemoryStream();
        byte[] buffer = new byte[4096];
        try
        {
            while (await socket.ReceiveAsync(buffer) is var count and > 0)
            {
                output.Write(buffer, 0, count);
            }
        }
        catch (SocketException e) when (e.SocketErrorCode == SocketError.ConnectionReset)
        {
            // A server that cuts off a client need not be polite.
        }
        return output.ToArray();
    }

    private static void CheckEnd(NbdDisconnect end, params NbdDisconnectReason[] expected)
        => MutationException.Require(expected.Contains(end.Reason), $"the end was {end}, not {string.Join(" or ", expected)}");

    private TaskCompletionSource<NbdDisconnect> EndOf(EndPoint client)
        => _ends.GetOrAdd(client, static _ => new TaskCompletionSource<NbdDisconnect>(TaskCreationOptions.RunContinuationsAsynchronously));
}
