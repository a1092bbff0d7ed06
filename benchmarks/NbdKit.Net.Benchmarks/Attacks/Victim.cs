using System.Diagnostics;
using System.Net.Sockets;
using NbdKit.Benchmarks.Load;
using NbdKit.Benchmarks.Servers;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks.Attacks;

/// <summary>A server under attack, and a polite client that looks how it does.</summary>
internal sealed class Victim(ServerProcess server, string exportName)
{
    private const int TimeoutMilliseconds = 2000;
    private const int Length = 4096;
    private const int SimpleReplyHeader = 16;

    /// <summary>How long a polite client waits before it gives a server up.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(20);

    public ServerProcess Server => server;

    /// <summary>All that a client says until it has the disk.</summary>
    public byte[] Go { get; } = LoadHandshake.Go(exportName);

    /// <summary>A connection on which nothing was said yet; calls on it wait two seconds at most.</summary>
    public Socket Connect() => LoadHandshake.Connect(server.EndPoint, TimeoutMilliseconds);

    /// <summary>A connection in transmission.</summary>
    public Socket Open() => LoadHandshake.Open(server.EndPoint, Go, TimeoutMilliseconds).Socket;

    /// <summary>Whether a polite client is served, and how soon, in words.</summary>
    public string Ask()
    {
        var watch = Stopwatch.StartNew();
        while (!server.HasEnded && watch.Elapsed < Patience)
        {
            if (TryRead())
            {
                return watch.Elapsed < TimeSpan.FromSeconds(1) ? "served" : $"served after {watch.Elapsed.TotalSeconds:0} s";
            }
            Thread.Sleep(100);
        }
        return server.HasEnded ? "ended" : $"not served for {Patience.TotalSeconds:0} s";
    }

    private bool TryRead()
    {
        try
        {
            using Socket socket = Connect();
            byte[] greeting = new byte[LoadHandshake.GreetingSize];
            LoadHandshake.ReceiveExactly(socket, greeting);
            LoadHandshake.SendAll(socket, Go);
            byte[] byteByByte = new byte[1];
            // The replies to GO end with an acknowledgement: type 1, length 0.
            for (ulong last = 0; last != 0x1_0000_0000;)
            {
                LoadHandshake.ReceiveExactly(socket, byteByByte);
                last = (last << 8) | byteByByte[0];
            }
            LoadHandshake.SendAll(socket, RequestEncoding.Reads(1, Length));
            LoadHandshake.ReceiveExactly(socket, new byte[SimpleReplyHeader + Length]);
            byte[] goodbye = new byte[RequestHeader.Size];
            RequestEncoding.Write(goodbye, CommandType.Disconnect, 0, 0, 0);
            LoadHandshake.SendAll(socket, goodbye);
            return true;
        }
        catch (Exception e) when (e is SocketException or EndOfStreamException)
        {
            return false;
        }
    }
}
