using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Caching;

/// <summary>
/// Which blocks of a disk are in a store, in which slots, which of them were changed, and in which order they were used.
/// Safe for use by several threads; who reads or writes the slots of a block holds the lock of that block.
/// </summary>
/// <remarks>
/// Blocks get slots and not a place by their offset, so that a store of a limited size never needs more space than that,
/// whatever it lies on: the slot of a block that is dropped serves the next one.
/// </remarks>
internal sealed partial class CacheIndex
{
    // More candidates than this are not looked at for one that nobody uses.
    private const int Candidates = 1024;

    private readonly Lock _lock = new();
    private readonly BlockMap _map;
    private readonly IOverlayStore _store;
    private readonly int _blockSize;
    private readonly Dictionary<long, int> _slots = [];
    private volatile int _used;

    /// <param name="blocks">The number of blocks of the disk.</param>
    /// <param name="blockSize">Their size, which is that of the slots.</param>
    /// <param name="capacity">The largest number of slots.</param>
    /// <param name="store">Is told which slots are not needed any more.</param>
    public CacheIndex(long blocks, int blockSize, int capacity, IOverlayStore store)
    {
        _map = new BlockMap(blocks);
        _blockSize = blockSize;
        _store = store;
        Capacity = capacity;
    }

    /// <summary>The largest number of slots.</summary>
    public int Capacity { get; }

    /// <summary>The number of slots in use.</summary>
    public int Used => _used;

    /// <summary>The number of blocks that are to be written to the layer below.</summary>
    public int Changed
    {
        get
        {
            // Who uses a block takes it off its list for a moment.
            lock (_lock)
            {
                return _changed.Count;
            }
        }
    }

    /// <summary>The state of a block, and where the blocks of that state end.</summary>
    public BlockState Run(long first, long limit, out long end) => _map.Run(first, limit, out end);

    /// <summary>The slots of a block that is in the store, and of those after it; counts as a use of them.</summary>
    public SlotRun Find(long first, long end)
    {
        lock (_lock)
        {
            SlotRun run = FindRun(first, end);
            for (int slot = run.Slot; slot < run.Slot + run.Count; slot++)
            {
                Unlink(slot);
                Link(slot, _entries[slot].IsChanged);
            }
            return run;
        }
    }

    /// <summary>
    /// The slots of a block and of those after it, or new ones, which nobody finds before <see cref="Commit"/>.
    /// </summary>
    /// <returns>At least one slot, or none if all are in use.</returns>
    public SlotRun Take(long first, long end)
    {
        lock (_lock)
        {
            SlotRun run = FindRun(first, end);
            if (run.Count > 0 || _used >= Capacity)
            {
                return run;
            }
            int slot = NewSlot();
            int count = 1;
            while (first + count < end && _used < Capacity && !_slots.ContainsKey(first + count) && IsNextNew(slot + count))
            {
                NewSlot();
                count++;
            }
            return new SlotRun(slot, count, IsNew: true);
        }
    }

    /// <summary>Gives back new slots that could not be written to: they are tried again when there are no others.</summary>
    public void GiveBack(SlotRun run)
    {
        lock (_lock)
        {
            for (int i = run.Count - 1; i >= 0; i--)
            {
                _unusable.Push(run.Slot + i);
            }
            _used -= run.Count;
        }
    }

    /// <summary>Says what was written to slots that were taken.</summary>
    public void Commit(long first, SlotRun run, BlockState state)
    {
        lock (_lock)
        {
            for (int i = 0; i < run.Count; i++)
            {
                int slot = run.Slot + i;
                if (run.IsNew)
                {
                    _slots.Add(first + i, slot);
                    _entries[slot].Block = first + i;
                }
                else
                {
                    Unlink(slot);
                }
                Link(slot, state == BlockState.Changed);
            }
            _map.Set(first, first + run.Count, state);
        }
    }

    /// <summary>Changes the state of those blocks of a range that are in the store.</summary>
    public void Mark(long first, long end, BlockState state)
    {
        lock (_lock)
        {
            for (long at = first; at < end;)
            {
                BlockState old = _map.Run(at, end, out long to);
                if (old != BlockState.Below && old != state)
                {
                    for (long block = at; block < to; block++)
                    {
                        int slot = _slots[block];
                        Unlink(slot);
                        Link(slot, state == BlockState.Changed);
                    }
                    _map.Set(at, to, state);
                }
                at = to;
            }
        }
    }

    /// <summary>Forgets the blocks of a range, or only those that are the same below.</summary>
    public void Drop(long first, long end, bool unchangedOnly)
    {
        lock (_lock)
        {
            for (long at = first; at < end && _slots.Count > 0;)
            {
                BlockState state = _map.Run(at, end, out long to);
                if (state != BlockState.Below && !(unchangedOnly && state == BlockState.Changed))
                {
                    for (long block = at; block < to; block++)
                    {
                        Free(_slots[block]);
                    }
                    _map.Set(at, to, BlockState.Below);
                }
                at = to;
            }
        }
    }

    /// <summary>Forgets blocks that are the same below and that nobody uses, those first that were not used for longest.</summary>
    /// <param name="count">How many.</param>
    /// <param name="locks">The locks of the blocks.</param>
    /// <returns>How many it were.</returns>
    public int DropOldest(int count, RangeLock locks)
    {
        int dropped = 0;
        lock (_lock)
        {
            int slot = _unchanged.Oldest;
            for (int seen = 0; slot >= 0 && dropped < count && seen < Candidates + count; seen++)
            {
                int newer = _entries[slot].Newer;
                long block = _entries[slot].Block;
                if (locks.TryEnter(block, block + 1, exclusive: true) is { } held)
                {
                    using (held)
                    {
                        Free(slot);
                        _map.Set(block, block + 1, BlockState.Below);
                        dropped++;
                    }
                }
                slot = newer;
            }
        }
        return dropped;
    }

    /// <summary>The changed block that was not used for longest.</summary>
    /// <param name="skip">How many to pass over.</param>
    /// <returns>The block, or -1 if there are no more.</returns>
    public long OldestChanged(int skip)
    {
        lock (_lock)
        {
            int slot = _changed.Oldest;
            while (slot >= 0 && skip-- > 0)
            {
                slot = _entries[slot].Newer;
            }
            return slot < 0 ? -1 : _entries[slot].Block;
        }
    }

    private SlotRun FindRun(long first, long end)
    {
        if (!_slots.TryGetValue(first, out int slot))
        {
            return default;
        }
        int count = 1;
        while (first + count < end && _slots.TryGetValue(first + count, out int next) && next == slot + count)
        {
            count++;
        }
        return new SlotRun(slot, count);
    }
}
