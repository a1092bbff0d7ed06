using System.Diagnostics;
using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>Reads whole disks as nbdcopy does, with nbdcopy beside it, and small blocks at random.</summary>
internal static class ClientMode
{
    private const long UsualSize = 1L << 30;
    private const long ShortSize = 64L << 20;
    private const int CopyRequest = 256 << 10;
    private const int SmallRequest = 4 << 10;
    private const int Depth = 64;

    public static string Run(Settings settings)
    {
        long size = settings.Size ?? (settings.IsShort ? ShortSize : UsualSize);
        int rounds = settings.Rounds(3);
        string machine = Machine.Describe(settings, $"medians of {rounds} rounds; the server is nbdkit");
        using var scratch = new Scratch(settings.Directory);
        var table = new MarkdownTable("work", "NbdKit.Net", "nbdcopy", "speed");
        foreach (string plugin in (string[])["memory", "null"])
        {
            using ServerProcess server = ServerProcess.Start(ServerCommand.Nbdkit(scratch.NewSocket(), plugin, $"{size}"));
            if (plugin == "memory")
            {
                // A half-sparse disk, as disks are.
                Programs.Run("nbdcopy", scratch.NewImage("in.img", size, 16L << 20), server.Uri);
            }
            foreach ((int connections, int request) in ((int, int)[])[(1, CopyRequest), (4, CopyRequest), (1, SmallRequest)])
            {
                var ours = new List<double>();
                var theirs = new List<double>();
                for (int round = 0; round < rounds; round++)
                {
                    Console.Error.WriteLine($"client, round {round + 1} of {rounds}: {plugin}, {connections} connections");
                    ours.Add(ReadAllAsync(server.Uri, size, connections, request).GetAwaiter().GetResult());
                    theirs.Add(Time(() => Programs.Run(
                        "nbdcopy",
                        $"--connections={connections}",
                        $"--requests={Depth}",
                        $"--request-size={request}",
                        // Both read every byte: what is a hole is for the server to know.
                        "--no-extents",
                        server.Uri,
                        "null:")));
                }
                double mine = size / Figures.Median(ours) / (1 << 20);
                double other = size / Figures.Median(theirs) / (1 << 20);
                table.Add(
                    $"{plugin}: {Figures.Bytes(request)} x {Depth}, {connections} connections",
                    $"{Figures.Count(mine)} MiB/s",
                    $"{Figures.Count(other)} MiB/s",
                    Figures.Ratio(mine, other));
            }
            double rate = Figures.Median(Enumerable.Range(0, rounds)
                .Select(_ => ReadRandomAsync(server.Uri, size, settings.Duration(1)).GetAwaiter().GetResult()));
            table.Add($"{plugin}: {Figures.Bytes(SmallRequest)} random x {Depth}", $"{Figures.Count(rate)} requests/s", "-", "-");
        }
        return $"""
            ## Client

            {machine}
            A disk of {Figures.Bytes(size)} is read as a whole, in one process without writing it anywhere; nbdcopy's time includes its start.

            {table}
            """;
    }

    /// <summary>The seconds that it takes to read a disk, from the connect on.</summary>
    private static async Task<double> ReadAllAsync(string uri, long size, int connections, int request)
    {
        long start = Stopwatch.GetTimestamp();
        NbdClientPool pool = await NbdClientPool.ConnectAsync(uri, connections);
        long next = -request;
        await Task.WhenAll(Enumerable.Range(0, Depth * connections).Select(_ => WorkAsync()));
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        await pool.DisposeAsync();
        return seconds;

        async Task WorkAsync()
        {
            byte[] buffer = GC.AllocateUninitializedArray<byte>(request);
            while (Interlocked.Add(ref next, request) is var offset && offset < size)
            {
                await pool.ReadAsync(buffer.AsMemory(0, (int)Math.Min(request, size - offset)), offset);
            }
        }
    }

    /// <summary>The small reads a second that a connection does.</summary>
    private static async Task<double> ReadRandomAsync(string uri, long size, TimeSpan duration)
    {
        NbdClient client = await NbdClient.ConnectAsync(uri);
        long start = Stopwatch.GetTimestamp();
        long[] counts = await Task.WhenAll(Enumerable.Range(0, Depth).Select(WorkAsync));
        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
        await client.DisposeAsync();
        return counts.Sum() / seconds;

        async Task<long> WorkAsync(int seed)
        {
            byte[] buffer = new byte[SmallRequest];
            var random = new Random(seed);
            long count = 0;
            for (; Stopwatch.GetElapsedTime(start) < duration; count++)
            {
                await client.ReadAsync(buffer, random.NextInt64(size / SmallRequest) * SmallRequest);
            }
            return count;
        }
    }

    private static double Time(Action work)
    {
        long start = Stopwatch.GetTimestamp();
        work();
        return Stopwatch.GetElapsedTime(start).TotalSeconds;
    }
}
