using System.Diagnostics;
using System.Globalization;
using NbdKit.Faults.Hostile;
using NbdKit.Faults.Rows;

namespace NbdKit.Faults;

/// <summary>The rows, and the running of them: each in a process of its own, whose death is the row's failure.</summary>
internal static class FaultMatrix
{
    private const int Passed = 0;
    private const int Failed = 1;
    private const int Skipped = 77;

    private const string Usage = """
        usage: NbdKit.Net.Faults gate|release|ROW[,ROW...] [--seed N] [--count N] [--release]
          gate       every row at the size that each change must pass
          release    every row at the size that a release must pass: hours
          ROW        some rows, such as F03; --release for that size, --count for one of your own
        """;

    private static readonly Fault[] Rows =
    [
        new IdleConnections(),
        new HalfOpenHandshakes(),
        new MalformedStreams(),
        new Cuts(),
        new KilledServer(),
        new PowerCuts(),
        new FaultyNetwork(),
        new TlsMisuse(),
        new PluginFaults(),
        new CancellationStorm(),
        new ShutdownDrain(),
        new DeafReaders(),
        new OptionFloods(),
        new MemoryCeiling(),
        new NoDescriptors(),
        new ThreadStarvation(),
        new SharedDisk(),
        new IntegrityLoad(),
        new RealFileSystems(),
        new Soak(),
        new FilterStacks(),
        new Interoperability(),
    ];

    public static async Task<int> RunAsync(string[] args)
    {
        if (args.Length == 0 || args[0] is "--help" or "-h")
        {
            await Console.Out.WriteLineAsync(Usage);
            foreach (Fault row in Rows)
            {
                await Console.Out.WriteLineAsync($"  {row.Id}  {row.Title}");
            }
            return args.Length == 0 ? Failed : Passed;
        }
        bool alone = args[0] == "--alone";
        string which = alone ? args[1] : args[0];
        string[] names = which.Split(',');
        Fault[] rows = which is "gate" or "release" ? Rows : [.. Rows.Where(row => names.Contains(row.Id))];
        if (rows.Length == 0 || (which is not ("gate" or "release") && rows.Length < names.Length))
        {
            await Console.Error.WriteLineAsync($"There is no row {which}.\n{Usage}");
            return Failed;
        }
        var run = new FaultRun(
            which == "release" || args.Contains("--release"),
            (int)(Value(args, "--seed") ?? Random.Shared.Next()),
            Value(args, "--count"));
        return alone ? await AloneAsync(rows[0], run) : await AllAsync(rows, run);
    }

    private static async Task<int> AllAsync(Fault[] rows, FaultRun run)
    {
        int passed = 0;
        int failed = 0;
        int skipped = 0;
        foreach (Fault row in rows)
        {
            switch (await ChildAsync(row, run))
            {
                case Passed:
                    passed++;
                    break;
                case Skipped:
                    skipped++;
                    break;
                default:
                    failed++;
                    break;
            }
        }
        await Console.Out.WriteLineAsync($"{passed} passed, {failed} failed, {skipped} skipped");
        return failed == 0 ? Passed : Failed;
    }

    private static async Task<int> ChildAsync(Fault row, FaultRun run)
    {
        string[] size = run.Count is { } count ? ["--count", count.ToString(CultureInfo.InvariantCulture)] : [];
        string[] release = run.IsRelease ? ["--release"] : [];
        var start = new ProcessStartInfo(
            System.Environment.ProcessPath!,
            ["--alone", row.Id, "--seed", run.Seed.ToString(CultureInfo.InvariantCulture), .. size, .. release]);
        foreach ((string name, string value) in row.Environment)
        {
            start.Environment[name] = value;
        }
        var watch = Stopwatch.StartNew();
        using Process child = Process.Start(start)!;
        using var limit = new CancellationTokenSource(run.IsRelease || run.Count is not null ? Timeout.InfiniteTimeSpan : row.GateLimit);
        try
        {
            await child.WaitForExitAsync(limit.Token);
        }
        catch (OperationCanceledException)
        {
            child.Kill(entireProcessTree: true);
            await Console.Out.WriteLineAsync($"{row.Id} FAILED   {row.Title}: still running after {watch.Elapsed.TotalSeconds:F0} s (seed {run.Seed})");
            return Failed;
        }
        if (child.ExitCode is not (Passed or Failed or Skipped))
        {
            await Console.Out.WriteLineAsync($"{row.Id} FAILED   {row.Title}: the process ended with {child.ExitCode} (seed {run.Seed})");
        }
        return child.ExitCode;
    }

    private static async Task<int> AloneAsync(Fault row, FaultRun run)
    {
        var watch = Stopwatch.StartNew();
        _ = MachineLag.Longest;
        using var host = new HostWatch();
        int result = Failed;
        string said;
        try
        {
            said = await row.RunAsync(run);
            await host.CheckAsync(row.LeavesNothing);
            result = Passed;
        }
        catch (FaultSkippedException skipped)
        {
            said = skipped.Message;
            result = Skipped;
        }
        catch (Exception failure)
        {
            said = failure.ToString();
        }
        string word = result switch { Passed => "passed ", Skipped => "skipped", _ => "FAILED " };
        await Console.Out.WriteLineAsync($"{row.Id} {word}  {row.Title}: {said} ({watch.Elapsed.TotalSeconds:F0} s, seed {run.Seed})");
        return result;
    }

    private static long? Value(string[] args, string name)
    {
        int at = Array.IndexOf(args, name);
        return at < 0 || at + 1 == args.Length ? null : long.Parse(args[at + 1], CultureInfo.InvariantCulture);
    }
}
