using System.Diagnostics;
using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A program that accepts TLS on a port and speaks no NBD, made into a server: whoever connects here gets a greeting and the answer to
/// NBD_OPT_STARTTLS, and what follows is the program's.
/// </summary>
internal sealed class TlsProgram : IAsyncDisposable
{
    private readonly TcpListener _listener = new(IPAddress.Loopback, 0);
    private readonly CancellationTokenSource _end = new();
    private readonly Process _process;
    private readonly int _port;
    private readonly Task _accepting;

    private TlsProgram(string program, Func<int, string[]> arguments)
    {
        _port = FreePort();
        _process = Process.Start(new ProcessStartInfo(program, arguments(_port))
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        _listener.Start();
        _accepting = AcceptAsync();
    }

    public EndPoint EndPoint => _listener.LocalEndpoint;

    /// <summary>Starts a program, with its arguments for a port.</summary>
    public static TlsProgram Start(string program, Func<int, string[]> arguments)
    {
        Peer.Require(program);
        return new TlsProgram(program, arguments);
    }

    /// <summary>Joins what the program has decrypted, at its standard input and output, with a server in plain text.</summary>
    public async Task ServeAsync(EndPoint server)
    {
        using var socket = new Socket(server.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        await socket.ConnectAsync(server, _end.Token);
        using var plain = new NetworkStream(socket);
        // The client has had its greeting and has answered it.
        await plain.ReadExactlyAsync(new byte[18], _end.Token);
        await plain.WriteAsync((byte[])[0, 0, 0, 3], _end.Token);
        Task there = _process.StandardOutput.BaseStream.CopyToAsync(plain, _end.Token);
        await Task.WhenAny(there, plain.CopyToAsync(_process.StandardInput.BaseStream, 16 << 10, _end.Token));
    }

    public async ValueTask DisposeAsync()
    {
        await _end.CancelAsync();
        _listener.Stop();
        await _accepting;
        _process.Kill();
        await _process.WaitForExitAsync();
        _process.Dispose();
    }

    private async Task AcceptAsync()
    {
        try
        {
            while (true)
            {
                using Socket client = await _listener.AcceptSocketAsync(_end.Token);
                await RelayAsync(new NetworkStream(client));
            }
        }
        catch (Exception e) when (e is OperationCanceledException or SocketException or InvalidOperationException)
        {
            // The end.
        }
    }

    private async Task RelayAsync(NetworkStream client)
    {
        try
        {
            await client.WriteAsync(
                new WireBytes().U64(Magic.Nbd).U64(Magic.IHaveOpt).U16(3).ToArray(), _end.Token);
            await client.ReadExactlyAsync(new byte[4 + 16], _end.Token);
            await client.WriteAsync(ScriptedServer.Reply(Opt.StartTls, Rep.Ack), _end.Token);
            using Socket program = await ConnectAsync();
            using var encrypted = new NetworkStream(program);
            await Task.WhenAny(client.CopyToAsync(encrypted, _end.Token), encrypted.CopyToAsync(client, _end.Token));
        }
        catch (IOException)
        {
            // One side has closed; the other is closed too.
        }
    }

    private async Task<Socket> ConnectAsync()
    {
        for (int attempt = 0; ; attempt++)
        {
            var socket = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
            try
            {
                await socket.ConnectAsync(IPAddress.Loopback, _port, _end.Token);
                return socket;
            }
            catch (SocketException) when (attempt < 200)
            {
                // It says nowhere that it listens by now.
                socket.Dispose();
                await Task.Delay(50, _end.Token);
            }
        }
    }

    private static int FreePort()
    {
        using var listener = new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp);
        listener.Bind(new IPEndPoint(IPAddress.Loopback, 0));
        return ((IPEndPoint)listener.LocalEndPoint!).Port;
    }
}
