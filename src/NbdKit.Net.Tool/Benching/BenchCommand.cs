using System.Globalization;

namespace NbdKit.Tool.Benching;

/// <summary>The verb <c>bench</c>.</summary>
internal static class BenchCommand
{
    /// <summary>The first argument that selects it.</summary>
    public const string Verb = "bench";

    /// <summary>Runs it.</summary>
    /// <param name="arguments">The arguments after <c>bench</c>.</param>
    /// <param name="catalogue">The plugins and filters.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">The arguments make no sense, or the disk cannot be opened.</exception>
    public static async Task<int> RunAsync(IReadOnlyList<string> arguments, NbdCatalogue catalogue)
    {
        BenchOptions options = BenchCommandLine.Parse(arguments);
        string text;
        if (options.Help)
        {
            text = HelpText();
        }
        else
        {
            using var signals = new SignalHandling();
            using var log = new LogFactory(new CommandOptions { Verbose = options.Verbose });
            try
            {
                text = await MeasureAsync(options, catalogue, log, signals.Stop).ConfigureAwait(false);
            }
            catch (OperationCanceledException e) when (signals.Stop.IsCancellationRequested)
            {
                throw new CommandException("interrupted", e);
            }
        }
        await Console.OpenStandardOutput().WriteAsync(StandardText.Bytes(text)).ConfigureAwait(false);
        return 0;
    }

    /// <summary>The text of <c>bench --help</c>.</summary>
    public static string HelpText() => $"""
        nbdkit-net bench [OPTION...] DISK

        Measures a disk: an NBD URI, a file, or a chain in square brackets, written as for serving it: [ memory 1G ].
        write and randwrite destroy what it holds.

        Options:
        {VerbLine.Help(BenchCommandLine.Known)}
        """;

    /// <summary>The result as text.</summary>
    internal static string Report(BenchOptions options, int connections, LatencyHistogram latencies, TimeSpan elapsed)
    {
        double seconds = Math.Max(elapsed.TotalSeconds, 1e-9);
        string pattern = options.Pattern switch
        {
            BenchPattern.Read => "read",
            BenchPattern.Write => "write",
            BenchPattern.RandomRead => "randread",
            _ => "randwrite",
        };
        return string.Create(CultureInfo.InvariantCulture, $"""
            {pattern} of {options.BlockSize} bytes, {options.Depth} in flight on each of {connections} connections, {seconds:0.0} s
            requests     {latencies.Count}
            requests/s   {latencies.Count / seconds:0}
            MB/s         {latencies.Count * (double)options.BlockSize / seconds / 1e6:0.0}
            latency mean {Micro(latencies.Mean)}
            latency p50  {Micro(latencies.Percentile(0.5))}
            latency p99  {Micro(latencies.Percentile(0.99))}
            latency max  {Micro(latencies.Maximum)}

            """);
    }

    private static async Task<string> MeasureAsync(
        BenchOptions options, NbdCatalogue catalogue, LogFactory log, CancellationToken cancellationToken)
    {
        OpenedDisk disk = await options.Disk!.OpenAsync(
            catalogue, readOnly: !options.IsWrite, options.Connections, log, cancellationToken).ConfigureAwait(false);
        await using var _ = disk.ConfigureAwait(false);
        var run = new BenchRun(disk.Contexts, options, TimeProvider.System);
        (LatencyHistogram latencies, TimeSpan elapsed) = await run.RunAsync(cancellationToken).ConfigureAwait(false);
        return Report(options, disk.Contexts.Count, latencies, elapsed);
    }

    private static string Micro(double nanoseconds) => FormattableString.Invariant($"{nanoseconds / 1000:0.0} us");
}
