using System.Net;
using System.Net.Sockets;
using NbdKit.Plugins;

namespace NbdKit.Benchmarks.Modes;

/// <summary>
/// The library in a process of its own, for what the command has no option for. Started by the other modes; answers questions
/// on its standard input, and ends with it.
/// </summary>
internal static class ServeMode
{
    public const string Name = "serve";

    /// <summary>The bytes on the managed heap that are in use.</summary>
    public const string HeapQuestion = "heap";

    /// <summary>The number of threads of the process.</summary>
    public const string ThreadsQuestion = "threads";

    private const int Backlog = 4096;

    /// <summary>Serves a disk in memory.</summary>
    /// <param name="arguments">The transport (unix, tcp or stream), its path or port, the size, the connections at a time.</param>
    public static async Task RunAsync(string[] arguments)
    {
        EndPoint endPoint = arguments[0] == "tcp"
            ? new IPEndPoint(IPAddress.Loopback, int.Parse(arguments[1]))
            : new UnixDomainSocketEndPoint(arguments[1]);
        bool asStream = arguments[0] == "stream";
        NbdBackend disk = NbdBackend.Compose(new MemoryPlugin { Size = long.Parse(arguments[2]) });
        var options = new NbdServerOptions
        {
            EndPoints = asStream ? [] : [endPoint],
            MaxConnections = int.Parse(arguments[3]),
            Backlog = Backlog,
        };
        await using var server = new NbdServer(disk, options);
        await server.StartAsync();
        using var listener = new Socket(endPoint.AddressFamily, SocketType.Stream, ProtocolType.Unspecified);
        if (asStream)
        {
            listener.Bind(endPoint);
            listener.Listen(Backlog);
            _ = AcceptAsync(listener, server);
        }
        while (await Console.In.ReadLineAsync() is { } question)
        {
            Console.WriteLine(question switch
            {
                HeapQuestion => GC.GetTotalMemory(forceFullCollection: true),
                ThreadsQuestion => System.Diagnostics.Process.GetCurrentProcess().Threads.Count,
                _ => -1,
            });
        }
    }

    private static async Task AcceptAsync(Socket listener, NbdServer server)
    {
        while (true)
        {
            Socket socket = await listener.AcceptAsync();
            _ = server.ServeAsync(new NetworkStream(socket, ownsSocket: true));
        }
    }
}
