using NbdKit.Benchmarks.Report;
using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Modes;

/// <summary>How long a user waits for a server.</summary>
internal static class StartMode
{
    public static string Run(Settings settings)
    {
        int rounds = settings.Rounds(9);
        int warm = rounds * 100;
        string machine = Machine.Describe(settings, $"medians of {rounds}, warm of {warm}");
        using var scratch = new Scratch(settings.Directory);
        var table = new MarkdownTable("start", "median ms", "slowest ms");
        Console.Error.WriteLine("start: publishing");
        string? host = ReadyToRunBuild.Publish("benchmarks/NbdKit.Net.Benchmarks", "NbdKit.Net.Benchmarks", scratch.FilePath("host"));
        string? tool = ReadyToRunBuild.Publish("src/NbdKit.Net.Tool", "nbdkit-net", scratch.FilePath("tool"));
        Console.Error.WriteLine("start: in process");
        (string program, string[] arguments) = ServerCommand.OfSelf(FirstRead.Name);
        AddCold(table, "as built", rounds, program, arguments);
        if (host is not null)
        {
            AddCold(table, "published ReadyToRun", rounds, host, FirstRead.Name);
        }
        TimeSpan[] warmTimes = [.. Enumerable.Range(0, 2 * warm).Select(_ => FirstRead.MeasureAsync().Result).TakeLast(warm)];
        Add(table, "in process, warm: compose to first answered read", warmTimes);
        AddCommand(
            table, "`nbdkit-net memory`, as built: exec to greeting", rounds,
            () => ServerCommand.Ours(settings, scratch.NewSocket(), "memory", "1G"));
        if (tool is not null)
        {
            AddCommand(
                table, "`nbdkit-net memory`, published ReadyToRun: exec to greeting", rounds,
                () => ServerCommand.OfTool(tool, scratch.NewSocket(), "memory", "1G"));
        }
        if (Programs.Exists("nbdkit"))
        {
            AddCommand(table, "`nbdkit memory`: exec to greeting", rounds, () => ServerCommand.Nbdkit(scratch.NewSocket(), "memory", "1G"));
        }
        if (Programs.Exists("qemu-nbd"))
        {
            string image = scratch.NewImage("disk.img", 1 << 20);
            AddCommand(table, "`qemu-nbd` of a file: exec to greeting", rounds, () => ServerCommand.QemuNbd(scratch.NewSocket(), image));
        }
        return $"""
            ## Start

            {machine}
            {table}
            {(host is null || tool is null ? "Published programs are missing: `dotnet publish` failed, as without its compiler package." : "")}
            """.TrimEnd();
    }

    private static void AddCommand(MarkdownTable table, string name, int rounds, Func<ServerCommand> command)
    {
        Console.Error.WriteLine($"start: {name}");
        var times = new List<TimeSpan>();
        // The first puts the program into the page cache.
        for (int round = -1; round < rounds; round++)
        {
            using ServerProcess server = ServerProcess.Start(command());
            if (round >= 0)
            {
                times.Add(server.StartTime);
            }
        }
        Add(table, name, times);
    }

    private static void Add(MarkdownTable table, string name, IReadOnlyCollection<TimeSpan> times)
        => table.Add(
            name,
            Figures.Fine(Figures.Median(times.Select(time => time.TotalMilliseconds))),
            Figures.Fine(times.Max().TotalMilliseconds));

    private static void AddCold(MarkdownTable table, string how, int rounds, string program, params string[] arguments)
        => Add(
            table,
            $"in process, cold, {how}: compose to first answered read",
            [.. Enumerable.Range(0, rounds).Select(_ => Cold(program, arguments))]);

    private static TimeSpan Cold(string program, string[] arguments)
    {
        string? line = Programs.FirstLine(program, arguments);
        return TimeSpan.FromMicroseconds(long.Parse(line ?? throw new InvalidOperationException("The first read failed.")));
    }
}
