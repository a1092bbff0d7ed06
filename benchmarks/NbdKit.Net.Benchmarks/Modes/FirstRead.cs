using System.Diagnostics;
using NbdKit.Benchmarks.Load;
using NbdKit.Filters;
using NbdKit.Plugins;
using NbdKit.Protocol;

namespace NbdKit.Benchmarks.Modes;

/// <summary>From nothing to the first answered read in process: composes a chain, serves it over a pipe, reads.</summary>
internal static class FirstRead
{
    public const string Name = "first-read";

    private const int Length = 4096;

    public static async Task<TimeSpan> MeasureAsync()
    {
        byte[] request = RequestEncoding.Reads(1, Length);
        var connection = new PipeConnection();
        long start = Stopwatch.GetTimestamp();
        NbdBackend disk = NbdBackend.Compose(new MemoryPlugin { Size = 1 << 30 }, new OffsetFilter { Offset = 1 << 20 });
        await using var server = new NbdServer(disk);
        Task<NbdDisconnect> serving = server.ServeAsync(connection.Server);
        await connection.OpenAsync();
        await connection.ExchangeAsync(request, SimpleReply.Size + Length);
        TimeSpan elapsed = Stopwatch.GetElapsedTime(start);
        connection.Close();
        await serving;
        return elapsed;
    }

    /// <summary>In a process that has done nothing before: prints the time in microseconds.</summary>
    public static async Task RunAsync() => Console.WriteLine((long)(await MeasureAsync()).TotalMicroseconds);
}
