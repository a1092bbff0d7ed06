using System.Diagnostics;
using System.Net.Sockets;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Load;

/// <summary>Puts load on a server.</summary>
internal static class LoadRun
{
    private static readonly TimeSpan LongestWarmUp = TimeSpan.FromSeconds(1);

    /// <summary>Does the work for a while without and then with measuring.</summary>
    public static LoadResult MeasureWarm(ServerProcess server, Work work, TimeSpan duration)
    {
        TimeSpan half = duration / 2;
        Measure(server, work, half < LongestWarmUp ? half : LongestWarmUp);
        return Measure(server, work, duration);
    }

    /// <summary>Does the work for a while. Handshakes and the last replies do not count as time.</summary>
    public static LoadResult Measure(ServerProcess server, Work work, TimeSpan duration)
    {
        var gate = new LoadGate();
        LoadConnection[] connections = Open(server, work, long.MaxValue, gate);
        TimeSpan processorBefore = server.ProcessorTime;
        long start = Stopwatch.GetTimestamp();
        gate.Opened.Set();
        Thread.Sleep(duration);
        long finished = connections.Sum(connection => connection.Finished);
        TimeSpan elapsed = Stopwatch.GetElapsedTime(start);
        long resident = server.ResidentBytes;
        gate.Stop();
        Join(connections);
        TimeSpan processor = server.ProcessorTime - processorBefore;
        long all = connections.Sum(connection => connection.Finished);
        return new LoadResult(finished / elapsed.TotalSeconds, processor.TotalMicroseconds / Math.Max(1, all), resident);
    }

    /// <summary>Makes so many requests on the work's connections each.</summary>
    public static void Make(ServerProcess server, Work work, long requests)
    {
        var gate = new LoadGate();
        LoadConnection[] connections = Open(server, work, requests, gate);
        gate.Opened.Set();
        Join(connections);
    }

    /// <summary>Writes the whole disk once.</summary>
    public static void WriteWhole(ServerProcess server)
    {
        (Socket socket, long size) = LoadHandshake.Open(server.EndPoint);
        socket.Dispose();
        Make(server, Work.Fill, size / Work.Fill.BlockSize);
    }

    private static LoadConnection[] Open(ServerProcess server, Work work, long requests, LoadGate gate)
    {
        var connections = new LoadConnection[work.Connections];
        for (int i = 0; i < connections.Length; i++)
        {
            (Socket socket, long size) = LoadHandshake.Open(server.EndPoint);
            connections[i] = new LoadConnection(socket, size, work, i, requests, gate);
        }
        return connections;
    }

    private static void Join(LoadConnection[] connections)
    {
        foreach (LoadConnection connection in connections)
        {
            connection.Join();
        }
    }
}
