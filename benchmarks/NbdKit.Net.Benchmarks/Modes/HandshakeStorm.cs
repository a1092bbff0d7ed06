using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using NbdKit.Benchmarks.Load;

namespace NbdKit.Benchmarks.Modes;

/// <summary>Connections that are opened as fast as possible and then kept, doing nothing.</summary>
internal sealed class HandshakeStorm : IDisposable
{
    // Enough to keep the server busy while each client waits for its replies.
    private const int Clients = 8;

    private readonly Socket[] _connections;
    private readonly long[] _finished;
    private readonly long _start;

    public HandshakeStorm(EndPoint endPoint, int count)
    {
        _connections = new Socket[count];
        _finished = new long[count];
        _start = Stopwatch.GetTimestamp();
        int next = -1;
        Task[] clients = [.. Enumerable.Range(0, Clients).Select(_ => Task.Factory.StartNew(Open, TaskCreationOptions.LongRunning))];
        Task.WaitAll(clients);
        Array.Sort(_finished);

        void Open()
        {
            int number;
            while ((number = Interlocked.Increment(ref next)) < count)
            {
                _connections[number] = LoadHandshake.Open(endPoint).Socket;
                _finished[number] = Stopwatch.GetTimestamp();
            }
        }
    }

    /// <summary>Handshakes a second, among the first so many.</summary>
    public double RateOfFirst(int count) => count / Stopwatch.GetElapsedTime(_start, _finished[count - 1]).TotalSeconds;

    /// <summary>Handshakes a second, among the last so many.</summary>
    public double RateOfLast(int count)
        => (count - 1) / Stopwatch.GetElapsedTime(_finished[^count], _finished[^1]).TotalSeconds;

    public void Dispose()
    {
        foreach (Socket? connection in _connections)
        {
            connection?.Dispose();
        }
    }
}
