using NbdKit.Benchmarks.Load;
using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>What connections cost that do nothing, how fast they come, and what one costs another.</summary>
internal static class ConnectionsMode
{
    private const int Rated = 1000;
    private const long DiskBytes = 64 << 20;

    // Until memory has settled after many connections came or went.
    private static readonly TimeSpan Settling = TimeSpan.FromSeconds(1);

    public static string Run(Settings settings)
    {
        int count = settings.Connections ?? (settings.IsShort ? 500 : 10_000);
        int rounds = settings.Rounds(3);
        TimeSpan duration = settings.Duration(1);
        string machine = Machine.Describe(settings, $"{count} connections; speeds are medians of {rounds} rounds of {duration.TotalSeconds} s");
        using var scratch = new Scratch(settings.Directory);
        int rated = Math.Min(Rated, count / 2);
        var idle = new MarkdownTable(
            "server", "bytes resident each", "bytes of heap each", "threads", $"first {rated}: handshakes/s", $"last {rated}: handshakes/s");
        using (ServerProcess server = ServerProcess.Start(ServerCommand.Library(scratch.NewSocket(), DiskBytes, count + 100)))
        {
            AddIdle(idle, "NbdKit.Net", server, count, rated, asks: true);
        }
        if (Programs.Exists("qemu-nbd"))
        {
            string image = scratch.NewImage("disk.img", 1 << 20);
            using ServerProcess server = ServerProcess.Start(ServerCommand.QemuNbd(scratch.NewSocket(), image));
            AddIdle(idle, "qemu-nbd", server, count, rated, asks: false);
        }
        return $"""
            ## Connections

            {machine}
            Connections that finished the handshake and do nothing:

            {idle}
            A connection with one read of 4 KiB at a time, alone and beside one that floods the server:

            {Fairness(scratch, rounds, duration)}
            """;
    }

    private static void AddIdle(MarkdownTable table, string name, ServerProcess server, int count, int rated, bool asks)
    {
        Console.Error.WriteLine($"connections: {name}");
        new HandshakeStorm(server.EndPoint, Math.Min(count, 2 * Rated)).Dispose();
        Thread.Sleep(Settling);
        long heapBefore = asks ? server.Ask(ServeMode.HeapQuestion) : 0;
        long residentBefore = server.ResidentBytes;
        using var storm = new HandshakeStorm(server.EndPoint, count);
        Thread.Sleep(Settling);
        long resident = server.ResidentBytes;
        long heap = asks ? server.Ask(ServeMode.HeapQuestion) : 0;
        table.Add(
            name,
            Figures.Count((double)(resident - residentBefore) / count),
            asks ? Figures.Count((double)(heap - heapBefore) / count) : "",
            asks ? $"{server.Ask(ServeMode.ThreadsQuestion)}" : "",
            Figures.Count(storm.RateOfFirst(rated)),
            Figures.Count(storm.RateOfLast(rated)));
    }

    private static MarkdownTable Fairness(Scratch scratch, int rounds, TimeSpan duration)
    {
        Work polite = Work.Find("4k-read-qd1");
        var table = new MarkdownTable("flood", "alone: requests/s", "beside it: requests/s", "ratio");
        using ServerProcess server = ServerProcess.Start(ServerCommand.Library(scratch.NewSocket(), DiskBytes));
        LoadRun.WriteWhole(server);
        foreach (string name in (string[])["4k-read-qd64", "4k-write-qd64", "1m-read-qd4"])
        {
            Console.Error.WriteLine($"connections: a flood of {name}");
            var alone = new List<LoadResult>();
            var beside = new List<LoadResult>();
            for (int round = 0; round < rounds; round++)
            {
                alone.Add(LoadRun.MeasureWarm(server, polite, duration));
                // It begins before what is measured and its warm-up, and ends after them.
                Task flood = Task.Run(() => LoadRun.Measure(server, Work.Find(name), 2 * duration));
                beside.Add(LoadRun.MeasureWarm(server, polite, duration));
                flood.Wait();
            }
            double before = LoadResult.Median(alone).RequestsPerSecond;
            double after = LoadResult.Median(beside).RequestsPerSecond;
            table.Add(name, Figures.Count(before), Figures.Count(after), Figures.Ratio(after, before));
        }
        return table;
    }
}
