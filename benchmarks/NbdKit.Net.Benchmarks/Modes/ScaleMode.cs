using NbdKit.Benchmarks.Load;
using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>Whether the cost of a request stays the same as things grow.</summary>
internal static class ScaleMode
{
    private const int BlockSize = 4 << 10;
    private const int Blocks = 256;
    private const long DiskBytes = 256 << 20;

    private static readonly long[] Sizes = [1L << 20, 1L << 30, 1L << 40, 1L << 50, 1L << 60];
    private static readonly int[] ConnectionCounts = [1, 10, 100, 1000];
    private static readonly int[] Depths = [1, 4, 16, 64, 256, 1024];

    public static string Run(Settings settings)
    {
        int rounds = settings.Rounds(3);
        TimeSpan duration = settings.Duration(1);
        string machine = Machine.Describe(settings, $"medians of {rounds} rounds of {duration.TotalSeconds} s; the library with `memory`");
        using var scratch = new Scratch(settings.Directory);
        return $"""
            ## Scale

            {machine}
            Random requests of 4 KiB. Disks of all sizes hold the same {Blocks} blocks, at equal distances; 64 requests are in flight.

            {OverSizes(scratch, rounds, duration)}
            Connections with 16 requests in flight each:

            {OverConnections(scratch, rounds, duration)}
            One connection, with so many requests in flight (the server takes {new NbdServerOptions().MaxRequestsInFlight} at a time):

            {OverDepths(scratch, rounds, duration)}
            """;
    }

    private static MarkdownTable OverSizes(Scratch scratch, int rounds, TimeSpan duration)
    {
        MarkdownTable table = NewTable("disk size");
        foreach (long size in Sizes)
        {
            Console.Error.WriteLine($"scale: a disk of {Figures.Bytes(size)}");
            using ServerProcess server = ServerProcess.Start(ServerCommand.Library(scratch.NewSocket(), size));
            Work reads = Reads(64, 1) with { Blocks = Blocks };
            LoadRun.Make(server, reads with { Writes = true, Random = false }, Blocks);
            AddRow(table, Figures.Bytes(size), server, reads, rounds, duration);
        }
        return table;
    }

    private static MarkdownTable OverConnections(Scratch scratch, int rounds, TimeSpan duration)
    {
        MarkdownTable table = NewTable("connections");
        foreach (int count in ConnectionCounts)
        {
            Console.Error.WriteLine($"scale: {count} connections");
            using ServerProcess server = ServerProcess.Start(
                ServerCommand.Library(scratch.NewSocket(), DiskBytes, maxConnections: count + 100));
            LoadRun.WriteWhole(server);
            AddRow(table, $"{count}", server, Reads(16, count), rounds, duration);
        }
        return table;
    }

    private static MarkdownTable OverDepths(Scratch scratch, int rounds, TimeSpan duration)
    {
        MarkdownTable table = NewTable("depth");
        foreach (int depth in Depths)
        {
            Console.Error.WriteLine($"scale: {depth} requests in flight");
            using ServerProcess server = ServerProcess.Start(ServerCommand.Library(scratch.NewSocket(), DiskBytes));
            LoadRun.WriteWhole(server);
            AddRow(table, $"{depth}", server, Reads(depth, 1), rounds, duration);
        }
        return table;
    }

    private static Work Reads(int depth, int connections)
        => new($"depth {depth}", Writes: false, Random: true, BlockSize, depth, connections);

    private static MarkdownTable NewTable(string what)
        => new(what, "reads/s", "CPU µs/read", "writes/s", "CPU µs/write", "MiB resident");

    private static void AddRow(
        MarkdownTable table, string name, ServerProcess server, Work reads, int rounds, TimeSpan duration)
    {
        LoadResult read = Median(server, reads, rounds, duration);
        LoadResult write = Median(server, reads with { Writes = true }, rounds, duration);
        table.Add(
            name,
            Figures.Count(read.RequestsPerSecond),
            Figures.Fine(read.CpuMicroseconds),
            Figures.Count(write.RequestsPerSecond),
            Figures.Fine(write.CpuMicroseconds),
            Figures.Mebibytes(Math.Max(read.ResidentBytes, write.ResidentBytes)));
    }

    private static LoadResult Median(ServerProcess server, Work work, int rounds, TimeSpan duration)
        => LoadResult.Median([.. Enumerable.Range(0, rounds).Select(_ => LoadRun.MeasureWarm(server, work, duration))]);
}
