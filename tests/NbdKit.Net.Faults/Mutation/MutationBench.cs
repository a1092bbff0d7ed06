using System.Diagnostics;

namespace NbdKit.Faults.Mutation;

/// <summary>All targets, and the running of streams on them within their limits of time and memory.</summary>
internal sealed class MutationBench : IAsyncDisposable
{
    private const long MaxAllocation = 4 << 20;

    // What was declared is allocated by the server once, and by the collecting (which grows by doubling) and judging of its output.
    private const int Copies = 6;

    // Something else may have cost the time, or allocated the memory, so it counts only if it happens each time.
    private const int Tries = 6;

    private static readonly TimeSpan MaxTime = TimeSpan.FromMilliseconds(50);

    private readonly MutationTarget[] _targets =
    [
        new ServerTarget(handshake: true),
        new ServerTarget(handshake: false),
        new ExtentsTarget(),
        new ReplyTarget(handshake: true),
        new ReplyTarget(handshake: false),
        new AskTarget(),
        new TextTarget(),
    ];

    // In percent, in the order of the targets.
    private readonly int[] _shares = [24, 29, 15, 7, 12, 5, 8];

    /// <summary>The target that is due in a run.</summary>
    public MutationTarget Pick(Random random)
    {
        int at = random.Next(100);
        for (int i = 0; ; i++)
        {
            at -= _shares[i];
            if (at < 0)
            {
                return _targets[i];
            }
        }
    }

    public MutationTarget Find(string name) => _targets.Single(target => target.Name == name);

    /// <summary>Runs one stream; what is wrong, or null.</summary>
    /// <param name="target">What takes it.</param>
    /// <param name="stream">The stream.</param>
    /// <param name="legal">Whether it must be served completely.</param>
    /// <param name="tries">So often may it cost too much.</param>
    public static async Task<MutationFault?> RunAsync(MutationTarget target, MutantStream stream, bool legal, int tries = Tries)
    {
        MutationFault? fault = null;
        for (int i = 0; i < tries; i++)
        {
            long begin = Stopwatch.GetTimestamp();
            long before = GC.GetTotalAllocatedBytes();
            long declared;
            try
            {
                declared = await target.RunAsync(stream, legal);
            }
            catch (Exception e)
            {
                return new MutationFault(e.ToString(), IsCost: false);
            }
            TimeSpan time = Stopwatch.GetElapsedTime(begin);
            long allocated = GC.GetTotalAllocatedBytes() - before;
            if (time <= MaxTime && allocated <= MaxAllocation + (Copies * declared))
            {
                return null;
            }
            fault = new MutationFault(
                $"it took {time.TotalMilliseconds:F0} ms and {allocated} bytes, for {declared} that it declares", IsCost: true);
        }
        return fault;
    }

    /// <summary>Fails if something that was taken for a stream was not given back.</summary>
    public void CheckBalance() => Array.ForEach(_targets, target => target.CheckBalance());

    public async ValueTask DisposeAsync()
    {
        foreach (MutationTarget target in _targets)
        {
            await target.DisposeAsync();
        }
    }
}
