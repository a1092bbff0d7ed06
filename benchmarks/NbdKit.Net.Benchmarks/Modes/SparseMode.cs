using System.Diagnostics;
using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>Reads a disk that is nine tenths holes: told as holes, and sent as zeroes.</summary>
internal static class SparseMode
{
    private const long UsualSize = 4L << 30;
    private const long ShortSize = 64L << 20;
    private const int Request = 1 << 20;
    private const int Period = 10;
    private const int Depth = 16;

    public static string Run(Settings settings)
    {
        long size = settings.Size ?? (settings.IsShort ? ShortSize : UsualSize);
        int rounds = settings.Rounds(3);
        string machine = Machine.Describe(settings, $"medians of {rounds} rounds, in turn");
        using var scratch = new Scratch(settings.Directory);
        string image = scratch.FilePath("sparse.img");
        Fill(image, size);
        var table = new MarkdownTable("work", "as holes", "as zeroes", "speed", "nbdkit, as zeroes", "speed");
        foreach ((string name, string[] chain) in ((string, string[])[])
        [
            ("file", ["file", image]),
            ("cow over file", ["--filter=cow", "file", image]),
        ])
        {
            using ServerProcess sparse = ServerProcess.Start(ServerCommand.Ours(settings, scratch.NewSocket(), chain));
            using ServerProcess full = ServerProcess.Start(
                ServerCommand.Ours(settings, scratch.NewSocket(), ["--filter=noextents", .. chain]));
            using ServerProcess nbdkit = ServerProcess.Start(ServerCommand.Nbdkit(scratch.NewSocket(), chain));
            ServerProcess[] servers = [sparse, full, nbdkit];
            List<double>[] seconds = [[], [], []];
            for (int round = 0; round < rounds + 1; round++)
            {
                Console.Error.WriteLine($"sparse, round {round} of {rounds}: {name}");
                var sums = new HashSet<long>();
                for (int i = 0; i < servers.Length; i++)
                {
                    (double time, long sum) = ReadAllAsync(servers[i].Uri, size).GetAwaiter().GetResult();
                    // The first round fills the page cache and warms the code.
                    if (round > 0)
                    {
                        seconds[i].Add(time);
                    }
                    sums.Add(sum);
                }
                if (sums.Count > 1)
                {
                    throw new InvalidOperationException("The disks differ.");
                }
            }
            double[] rates = [.. seconds.Select(times => size / Figures.Median(times) / (1 << 20))];
            table.Add(
                name,
                $"{Figures.Count(rates[0])} MiB/s",
                $"{Figures.Count(rates[1])} MiB/s",
                Figures.Ratio(rates[0], rates[1]),
                $"{Figures.Count(rates[2])} MiB/s",
                Figures.Ratio(rates[0], rates[2]));
        }
        return $"""
            ## Sparse reads

            {machine}
            A file of {Figures.Bytes(size)}, of which every tenth MiB is data, is read as a whole over a Unix socket in requests of
            {Figures.Bytes(Request)}, {Depth} at a time, without asking for extents; what arrives is compared.

            {table}
            """;
    }

    private static void Fill(string path, long size)
    {
        using FileStream file = File.Create(path);
        file.SetLength(size);
        byte[] data = new byte[Request];
        var random = new Random(90);
        for (long at = 0; at < size; at += Period * Request)
        {
            random.NextBytes(data);
            file.Position = at;
            file.Write(data, 0, (int)Math.Min(Request, size - at));
        }
    }

    private static async Task<(double Seconds, long Sum)> ReadAllAsync(string uri, long size)
    {
        await using NbdClient client = await NbdClient.ConnectAsync(uri);
        long next = -Request;
        long start = Stopwatch.GetTimestamp();
        long[] sums = await Task.WhenAll(Enumerable.Range(0, Depth).Select(_ => WorkAsync()));
        return (Stopwatch.GetElapsedTime(start).TotalSeconds, sums.Sum());

        async Task<long> WorkAsync()
        {
            byte[] buffer = new byte[Request];
            var parts = new List<NbdReadChunk>();
            long sum = 0;
            while (Interlocked.Add(ref next, Request) is var offset && offset < size)
            {
                parts.Clear();
                await client.ReadSparseAsync(buffer.AsMemory(0, (int)Math.Min(Request, size - offset)), offset, parts.Add);
                foreach (NbdReadChunk part in parts.Where(part => !part.IsHole))
                {
                    // One number of each block: as much of the content as is told apart here.
                    for (int at = 0; at < part.Length; at += 4096)
                    {
                        sum += buffer[(int)(part.Offset - offset) + at];
                    }
                }
            }
            return sum;
        }
    }
}
