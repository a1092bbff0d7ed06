using System.Net;
using System.Net.Sockets;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Cutting;

/// <summary>Our server on TCP, whose clients stop at any byte, with a bystander that reads meanwhile.</summary>
internal sealed class CutSocket : IAsyncDisposable
{
    private const int Size = 64 << 10;

    private readonly MutantPlugin _plugin = new();
    private readonly NbdServer _server;
    private TaskCompletionSource<NbdDisconnect>? _ended;
    private Bystander? _bystander;

    private CutSocket()
        => _server = new NbdServer(NbdBackend.Compose(_plugin), new NbdServerOptions
        {
            EndPoints = [new IPEndPoint(IPAddress.Loopback, 0)],
            Disconnected = (_, end) => _ended?.TrySetResult(end),
        });

    public static async Task<CutSocket> StartAsync()
    {
        var sockets = new CutSocket();
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
        (byte[] bytes, _) = CutSession.OfClient(form);
        _ended = new TaskCompletionSource<NbdDisconnect>(TaskCreationOptions.RunContinuationsAsynchronously);
        using var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        await socket.ConnectAsync(_server.EndPoints[0]);
        await socket.SendAsync(bytes.AsMemory(0, at));
        if (kind == CutKind.Reset)
        {
            socket.LingerState = new LingerOption(true, 0);
            socket.Close();
        }
        else
        {
            socket.Shutdown(SocketShutdown.Send);
            var output = new MemoryStream();
            byte[] buffer = new byte[4096];
            while (await socket.ReceiveAsync(buffer).Soon() is var count and > 0)
            {
                output.Write(buffer, 0, count);
            }
            new ServerJudge(bytes[..at], output.ToArray(), new ServerRules(3, false, 32 << 20, 128 << 10)).Check((await _ended.Task.Soon()).Reason);
        }
        NbdDisconnect end = await _ended.Task.Soon();
        MutationException.Require(
            end.Reason is NbdDisconnectReason.ClientDone or NbdDisconnectReason.ClientGone or NbdDisconnectReason.ConnectionLost, $"the end was {end}");
        // The bystander's.
        MutationException.Require(_plugin.Open == 1, $"{_plugin.Open} contexts are open");
    }

    /// <summary>What the bystander saw.</summary>
    public async Task<string> EndAsync()
    {
        (int count, double p99, double longest) = await _bystander!.EndAsync();
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
}
