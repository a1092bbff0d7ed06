using System.Diagnostics;
using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>Copies a half-sparse image into a disk in memory and out again.</summary>
internal static class CopyMode
{
    private const long UsualSize = 1L << 30;
    private const long ShortSize = 64L << 20;
    private const long Stretch = 16L << 20;

    public static string Run(Settings settings)
    {
        long size = settings.Size ?? (settings.IsShort ? ShortSize : UsualSize);
        int rounds = settings.Rounds(3);
        string machine = Machine.Describe(settings, $"medians of {rounds} rounds; the image is in the page cache");
        using var scratch = new Scratch(settings.Directory);
        string image = scratch.NewImage("in.img", size, Stretch);
        var times = new Dictionary<(string Step, string Server), List<(double Seconds, double ServerSeconds)>>();
        string[] servers = Programs.Exists("nbdkit") ? ["NbdKit.Net", "nbdkit"] : ["NbdKit.Net"];
        for (int round = 0; round < rounds; round++)
        {
            foreach (string server in servers)
            {
                foreach (CopySteps steps in CopySteps.Installed)
                {
                    Console.Error.WriteLine($"copy, round {round + 1} of {rounds}: {server}, {steps.Program}");
                    string[] arguments = ["memory", $"{size}"];
                    using ServerProcess process = ServerProcess.Start(server == "nbdkit"
                        ? ServerCommand.Nbdkit(scratch.NewSocket(), arguments)
                        : ServerCommand.Ours(settings, scratch.NewSocket(), arguments));
                    string copy = scratch.FilePath("out.img");
                    foreach ((string step, string[] command) in steps.Commands(image, process.Uri, copy))
                    {
                        File.Delete(copy);
                        TimeSpan before = process.ProcessorTime;
                        long start = Stopwatch.GetTimestamp();
                        Programs.Run(steps.Program, command);
                        double seconds = Stopwatch.GetElapsedTime(start).TotalSeconds;
                        if (!times.TryGetValue((step, server), out List<(double, double)>? list))
                        {
                            times.Add((step, server), list = []);
                        }
                        list.Add((seconds, (process.ProcessorTime - before).TotalSeconds));
                        if (round == 0 && File.Exists(copy))
                        {
                            Programs.Run("cmp", image, copy);
                        }
                    }
                }
            }
        }
        return $"""
            ## Copy

            {machine}
            An image of {Figures.Bytes(size)}, every second {Figures.Bytes(Stretch)} of it a hole, and a disk in memory. Time is a ratio, ours to theirs.

            {Table(times, servers)}
            """;
    }

    private static MarkdownTable Table(
        Dictionary<(string Step, string Server), List<(double Seconds, double ServerSeconds)>> times, string[] servers)
    {
        var table = new MarkdownTable(
            ["copy", .. servers.SelectMany(server => (string[])[$"{server}: s", "CPU s of the server"]), "time"]);
        foreach (string step in times.Keys.Select(key => key.Step).Distinct())
        {
            double[] medians = [.. servers.Select(server => Figures.Median(times[(step, server)].Select(t => t.Seconds)))];
            var cells = new List<string> { step };
            for (int i = 0; i < servers.Length; i++)
            {
                cells.Add(Figures.Fine(medians[i]));
                cells.Add(Figures.Fine(Figures.Median(times[(step, servers[i])].Select(t => t.ServerSeconds))));
            }
            cells.Add(servers.Length > 1 ? Figures.Ratio(medians[0], medians[1]) : "");
            table.Add([.. cells]);
        }
        return table;
    }
}
