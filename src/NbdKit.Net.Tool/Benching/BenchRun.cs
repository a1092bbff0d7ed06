namespace NbdKit.Tool.Benching;

/// <summary>Keeps requests in flight for some time, and measures them.</summary>
internal sealed class BenchRun
{
    /// <summary>After so many requests that completed at once, others get the thread.</summary>
    private const int Stint = 64;

    private readonly IReadOnlyList<NextContext> _contexts;
    private readonly BenchOptions _options;
    private readonly TimeProvider _time;
    private readonly long _blocks;
    private long _next = -1;
    private volatile bool _stopped;

    /// <exception cref="CommandException">The disk does not take such requests.</exception>
    public BenchRun(IReadOnlyList<NextContext> contexts, BenchOptions options, TimeProvider time)
    {
        _contexts = contexts;
        _options = options;
        _time = time;
        NbdExportInfo info = contexts[0].Info;
        _blocks = info.Size / options.BlockSize;
        if (_blocks == 0)
        {
            throw new CommandException($"the disk has {info.Size} bytes, which are fewer than those of one request");
        }
        if (options.IsWrite && !info.CanWrite)
        {
            throw new CommandException("the disk is read-only");
        }
        if (info.BlockSize.IsKnown
            && (options.BlockSize % info.BlockSize.Minimum != 0 || options.BlockSize > info.BlockSize.Maximum))
        {
            throw new CommandException(
                $"the disk takes requests of {info.BlockSize.Minimum} to {info.BlockSize.Maximum} bytes, in multiples of the former");
        }
    }

    /// <summary>Runs it.</summary>
    /// <returns>The latencies, and how long it took.</returns>
    /// <exception cref="NbdException">A request failed.</exception>
    public async Task<(LatencyHistogram Latencies, TimeSpan Elapsed)> RunAsync(CancellationToken cancellationToken)
    {
        long start = _time.GetTimestamp();
        long end = start + (long)(_options.Duration.TotalSeconds * _time.TimestampFrequency);
        var workers = new Task<LatencyHistogram>[_contexts.Count * _options.Depth];
        for (int i = 0; i < workers.Length; i++)
        {
            workers[i] = WorkAsync(_contexts[i % _contexts.Count], i, end, cancellationToken);
        }
        LatencyHistogram[] all = await Task.WhenAll(workers).ConfigureAwait(false);
        TimeSpan elapsed = _time.GetElapsedTime(start);
        var sum = new LatencyHistogram();
        foreach (LatencyHistogram one in all)
        {
            sum.AddAll(one);
        }
        return (sum, elapsed);
    }

    private async Task<LatencyHistogram> WorkAsync(
        NextContext context, int index, long end, CancellationToken cancellationToken)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        var latencies = new LatencyHistogram();
        var random = new Random(index);
        byte[] buffer = new byte[_options.BlockSize];
        // Nothing that compresses, and no zeroes that a layer might find.
        random.NextBytes(buffer);
        double scale = 1e9 / _time.TimestampFrequency;
        long before = _time.GetTimestamp();
        try
        {
            for (int done = 1; before < end && !_stopped; done++)
            {
                long offset = _options.BlockSize
                    * (_options.IsRandom ? random.NextInt64(_blocks) : Interlocked.Increment(ref _next) % _blocks);
                await (_options.IsWrite
                    ? context.WriteAsync(buffer, offset, RequestFlags.None, cancellationToken)
                    : context.ReadAsync(buffer, offset, cancellationToken)).ConfigureAwait(false);
                long after = _time.GetTimestamp();
                latencies.Add((long)((after - before) * scale));
                before = after;
                if (done % Stint == 0)
                {
                    await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
                    before = _time.GetTimestamp();
                }
            }
        }
        finally
        {
            // With the first failure all of them end.
            _stopped = true;
        }
        return latencies;
    }
}
