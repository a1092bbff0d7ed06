namespace NbdKit.Buffers;

/// <summary>
/// Locks ranges, of blocks for instance: who wants a range waits, holding no thread, for those that overlap it and came
/// before. Ranges that do not overlap never wait for each other.
/// </summary>
/// <remarks>First come, first served. Who holds a range must not ask for another, or two may wait for each other.</remarks>
internal sealed class RangeLock
{
    private readonly Lock _lock = new();

    // In the order in which they came, those that hold and those that wait.
    private readonly List<Held> _ranges = [];

    /// <summary>Takes a range; dispose of what comes back to let it go.</summary>
    /// <param name="first">The first number of the range.</param>
    /// <param name="end">The first number after it.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    public ValueTask<Held> AcquireAsync(long first, long end, CancellationToken cancellationToken)
    {
        var held = new Held(this, first, end);
        lock (_lock)
        {
            foreach (Held other in _ranges)
            {
                if (other.Overlaps(held))
                {
                    held.WaitsFor++;
                }
            }
            _ranges.Add(held);
            if (held.WaitsFor == 0)
            {
                return new(held);
            }
            held.Turn = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        }
        return WaitAsync(held, held.Turn.Task, cancellationToken);
    }

    private static async ValueTask<Held> WaitAsync(Held held, Task turn, CancellationToken cancellationToken)
    {
        try
        {
            await turn.WaitAsync(cancellationToken).ConfigureAwait(false);
            return held;
        }
        catch
        {
            held.Dispose();
            throw;
        }
    }

    private void Release(Held held)
    {
        lock (_lock)
        {
            int at = _ranges.IndexOf(held);
            if (at < 0)
            {
                return;
            }
            _ranges.RemoveAt(at);
            for (int i = at; i < _ranges.Count; i++)
            {
                if (_ranges[i].Overlaps(held) && --_ranges[i].WaitsFor == 0)
                {
                    _ranges[i].Turn!.TrySetResult();
                }
            }
        }
    }

    /// <summary>A range that is held, or waited for.</summary>
    internal sealed class Held(RangeLock owner, long first, long end) : IDisposable
    {
        /// <summary>How many overlapping ranges that came before are still there.</summary>
        public int WaitsFor { get; set; }

        public TaskCompletionSource? Turn { get; set; }

        public bool Overlaps(Held other) => First < other.End && other.First < End;

        public void Dispose() => owner.Release(this);

        private long First { get; } = first;

        private long End { get; } = end;
    }
}
