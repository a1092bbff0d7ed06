using System.IO.Pipelines;
using System.Net;
using System.Net.Sockets;

namespace NbdKit.Tests.Testing;

/// <summary>Two connected sockets, and the client's as a pair of pipes.</summary>
internal sealed class SocketPair : IDuplexPipe, IDisposable
{
    private readonly NetworkStream _stream;

    private SocketPair(Socket client, Socket server)
    {
        Client = client;
        Server = server;
        _stream = new NetworkStream(client, ownsSocket: true);
        Input = PipeReader.Create(_stream);
        Output = PipeWriter.Create(_stream);
    }

    public Socket Client { get; }

    public Socket Server { get; }

    public PipeReader Input { get; }

    public PipeWriter Output { get; }

    public static async Task<SocketPair> CreateAsync(bool tcp)
    {
        using var folder = new ScratchDirectory();
        EndPoint endPoint = tcp ? new IPEndPoint(IPAddress.Loopback, 0) : new UnixDomainSocketEndPoint(folder["s"]);
        using var listener = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        listener.Bind(endPoint);
        listener.Listen(1);
        var client = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        Task<Socket> accepting = listener.AcceptAsync();
        await client.ConnectAsync(listener.LocalEndPoint!);
        return new SocketPair(client, await accepting);
    }

    /// <summary>A client of a server, in transmission.</summary>
    public async Task<WireClient> GoAsync(NbdServer server, bool structured)
    {
        var client = new WireClient(this, server.ServeAsync(Server));
        await client.GreetAsync();
        if (structured)
        {
            await client.StructuredAsync();
        }
        await client.GoAsync();
        return client;
    }

    public void Dispose() => _stream.Dispose();
}
