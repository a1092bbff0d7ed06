using System.Diagnostics;

namespace NbdKit.Layers;

/// <summary>
/// Keeps requests apart that must not overlap: a range entered exclusively waits for every range that it overlaps, one
/// entered shared only for exclusive ones. Asynchronous, first come first served among those that overlap, and without
/// allocation unless somebody has to wait.
/// </summary>
/// <remarks>Whoever holds a range must not enter another one: two that do so could wait for each other.</remarks>
internal sealed class RangeLock
{
    private readonly Lock _lock = new();
    // Held and waiting ranges, in the order they came.
    private Holder? _first;
    private Holder? _last;
    private Holder? _unused;
    private int _exclusive;

    /// <summary>The number of ranges held or waited for.</summary>
    public int Count { get; private set; }

    /// <summary>Enters a range.</summary>
    /// <param name="start">First byte.</param>
    /// <param name="end">First byte after it.</param>
    /// <param name="exclusive">Whether no other range that overlaps it may be held.</param>
    /// <param name="cancellationToken">Gives up waiting.</param>
    /// <returns>What <see cref="Exit"/> needs, exactly once; or dispose of it, exactly once.</returns>
    public ValueTask<Holder> EnterAsync(long start, long end, bool exclusive, CancellationToken cancellationToken)
    {
        Holder holder;
        lock (_lock)
        {
            holder = Prepare(start, end, exclusive);
            _unused = holder.Next;
            holder.Granted = holder.Blockers == 0
                ? null
                : new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
            Append(holder);
        }
        return holder.Granted is { } granted ? WaitAsync(holder, granted.Task, cancellationToken) : new(holder);
    }

    /// <summary>
    /// Enters a range if that takes no waiting. Unlike <see cref="EnterAsync"/> also for who holds other ranges.
    /// </summary>
    /// <param name="start">First byte.</param>
    /// <param name="end">First byte after it.</param>
    /// <param name="exclusive">Whether no other range that overlaps it may be held.</param>
    /// <returns>What is to be left or disposed of, exactly once; or null.</returns>
    public Holder? TryEnter(long start, long end, bool exclusive)
    {
        lock (_lock)
        {
            Holder holder = Prepare(start, end, exclusive);
            if (holder.Blockers > 0)
            {
                holder.Start = holder.End = 0;
                return null;
            }
            _unused = holder.Next;
            Append(holder);
            return holder;
        }
    }

    /// <summary>Leaves a range, and lets in who waited for it alone.</summary>
    public void Exit(Holder holder)
    {
        lock (_lock)
        {
            for (Holder? later = holder.Next; later is not null; later = later.Next)
            {
                if (Conflict(holder, later) && --later.Blockers == 0)
                {
                    later.Granted!.TrySetResult();
                }
            }
            Remove(holder);
        }
    }

    private async ValueTask<Holder> WaitAsync(Holder holder, Task granted, CancellationToken cancellationToken)
    {
        try
        {
            await granted.WaitAsync(cancellationToken).ConfigureAwait(false);
            return holder;
        }
        catch
        {
            // Whether it was granted in the meantime or not: who came later counts it among its blockers.
            Exit(holder);
            throw;
        }
    }

    /// <summary>An unused holder for a range; it is the first of the unused ones still.</summary>
    private Holder Prepare(long start, long end, bool exclusive)
    {
        Holder holder = _unused ??= new Holder(this);
        holder.Start = start;
        holder.End = end;
        holder.IsExclusive = exclusive;
        holder.Blockers = CountBlockers(holder);
        return holder;
    }

    private int CountBlockers(Holder holder)
    {
        int blockers = 0;
        if (holder.IsExclusive || _exclusive > 0)
        {
            for (Holder? earlier = _first; earlier is not null; earlier = earlier.Next)
            {
                blockers += Conflict(earlier, holder) ? 1 : 0;
            }
        }
        return blockers;
    }

    private static bool Conflict(Holder one, Holder other)
        => (one.IsExclusive || other.IsExclusive) && one.Start < other.End && other.Start < one.End;

    private void Append(Holder holder)
    {
        holder.Previous = _last;
        holder.Next = null;
        if (_last is null)
        {
            _first = holder;
        }
        else
        {
            _last.Next = holder;
        }
        _last = holder;
        _exclusive += holder.IsExclusive ? 1 : 0;
        Count++;
    }

    private void Remove(Holder holder)
    {
        Debug.Assert(holder.End > holder.Start, "A range was left twice.");
        if (holder.Previous is null)
        {
            _first = holder.Next;
        }
        else
        {
            holder.Previous.Next = holder.Next;
        }
        if (holder.Next is null)
        {
            _last = holder.Previous;
        }
        else
        {
            holder.Next.Previous = holder.Previous;
        }
        _exclusive -= holder.IsExclusive ? 1 : 0;
        Count--;
        holder.Start = holder.End = 0;
        holder.Granted = null;
        holder.Previous = null;
        holder.Next = _unused;
        _unused = holder;
    }

    /// <summary>One range, held or waited for. Belongs to the lock again once it was left.</summary>
    internal sealed class Holder(RangeLock owner) : IDisposable
    {
        public void Dispose() => owner.Exit(this);

        internal long Start { get; set; }

        internal long End { get; set; }

        internal bool IsExclusive { get; set; }

        internal int Blockers { get; set; }

        internal TaskCompletionSource? Granted { get; set; }

        internal Holder? Previous { get; set; }

        internal Holder? Next { get; set; }
    }
}
