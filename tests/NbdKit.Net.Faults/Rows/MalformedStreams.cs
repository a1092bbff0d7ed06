using System.Collections.Concurrent;
using System.Diagnostics;
using System.Globalization;
using NbdKit.Faults.Mutation;
using NbdKit.Tests.Testing;

namespace NbdKit.Faults.Rows;

/// <summary>
/// A million malformed streams for everything that reads what others wrote. Every sixteenth is a good one, and must be served
/// completely: by the same servers, after all that was spoilt.
/// </summary>
/// <remarks>
/// A stream that fails is made short and printed, with its seed and number, and written to a file. Put into the folder Corpus, it
/// is run each time.
/// <para>
/// Branch coverage, measured by hand with coverlet around 100,000 streams of this row alone: all of the folder Protocol but one branch
/// (166 of 167): a form of reply that there is not is refused before its size is asked for. Of what takes the peer's bytes elsewhere
/// the row does not reach TLS, deadlines, transports that receive at once, a million extents or chunks, and memory that is lent.
/// </para>
/// </remarks>
internal sealed class MalformedStreams : Fault
{
    private const int GoodEvery = 16;
    private const int WatchedPart = 10;

    public override string Id => "F03";

    public override string Title => "malformed streams";

    public override async Task<string> RunAsync(FaultRun run)
    {
        var watch = Stopwatch.StartNew();
        long count = run.Size(1_000_000, 100_000_000);
        int shards = System.Environment.ProcessorCount;
        var dear = new ConcurrentQueue<long>();
        long next = 0;
        using var failed = new CancellationTokenSource();
        int kept;
        // To be told of each array costs too much for all streams.
        using (var arrays = new RentedArrays(minimum: 64))
        {
            kept = await ReplayCorpusAsync();
            await RunToAsync(count / WatchedPart);
            arrays.AssertBalanced();
        }
        await RunToAsync(count);
        await RunAloneAsync(run, dear);
        return string.Create(
            CultureInfo.InvariantCulture,
            $"{count} streams and {kept} of the corpus, none escaped, {count / watch.Elapsed.TotalSeconds:F0} a second");

        async Task RunToAsync(long end)
        {
            await Task.WhenAll(Enumerable.Range(0, shards).Select(_ => Task.Run(() => ShardAsync(end))));
            next = end;
        }

        async Task ShardAsync(long end)
        {
            await using var bench = new MutationBench();
            while (Interlocked.Increment(ref next) - 1 is var index && index < end && !failed.IsCancellationRequested)
            {
                (MutationTarget target, MutantStream stream, bool legal) = Make(bench, run, index);
                switch (await MutationBench.RunAsync(target, stream, legal, tries: 1))
                {
                    case { IsCost: true }:
                        dear.Enqueue(index);
                        break;
                    case { } fault:
                        await failed.CancelAsync();
                        throw await ExceptionAsync(run, index, target, stream, legal, fault);
                }
            }
            bench.CheckBalance();
        }
    }

    private static (MutationTarget Target, MutantStream Stream, bool IsLegal) Make(MutationBench bench, FaultRun run, long index)
    {
        var random = new Random(unchecked((run.Seed * 1_000_003) + (int)index + (int)(index >> 31)));
        MutationTarget target = bench.Pick(random);
        bool legal = index % GoodEvery == 0;
        return (target, target.Make(random, legal), legal);
    }

    /// <summary>Runs what cost too much once more: what others allocated meanwhile, and the time that they took, is not its fault.</summary>
    private static async Task RunAloneAsync(FaultRun run, IEnumerable<long> dear)
    {
        await using var bench = new MutationBench();
        foreach (long index in dear)
        {
            (MutationTarget target, MutantStream stream, bool legal) = Make(bench, run, index);
            if (await MutationBench.RunAsync(target, stream, legal) is { } fault)
            {
                throw await ExceptionAsync(run, index, target, stream, legal, fault);
            }
        }
    }

    private static async Task<MutationException> ExceptionAsync(
        FaultRun run, long index, MutationTarget target, MutantStream stream, bool legal, MutationFault fault)
    {
        if (!legal)
        {
            stream = await Shrinker.ShrinkAsync(
                stream, target.IsStream, async shorter => await MutationBench.RunAsync(target, shorter, legal: false) is not null);
            fault = await MutationBench.RunAsync(target, stream, legal: false) ?? fault;
        }
        string path = Path.Combine(Path.GetTempPath(), $"{target.Name}.{run.Seed}-{index}.hex");
        await File.WriteAllTextAsync(path, $"# {fault.What.ReplaceLineEndings("\n# ")}\n{stream}");
        return new MutationException(
            $"{target.Name}, seed {run.Seed}, stream {index} ({(legal ? "a good one" : "malformed")}), in {path}:\n{stream}{fault.What}");
    }

    private static async Task<int> ReplayCorpusAsync()
    {
        await using var bench = new MutationBench();
        string[] paths = Directory.GetFiles(Path.Combine(AppContext.BaseDirectory, "Corpus"), "*.hex");
        foreach (string path in paths)
        {
            MutationTarget target = bench.Find(Path.GetFileName(path).Split('.')[0]);
            if (await MutationBench.RunAsync(target, MutantStream.Parse(await File.ReadAllTextAsync(path)), legal: false) is { } fault)
            {
                throw new MutationException($"{path}: {fault.What}");
            }
        }
        return paths.Length > 0 ? paths.Length : throw new InvalidOperationException("The corpus is missing.");
    }
}
