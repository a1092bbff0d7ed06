namespace NbdKit.Filters.Caching;

// The slots: unused ones, and the two lists of those in use.
internal sealed partial class CacheIndex
{
    private readonly SlotList _unchanged = new();
    private readonly SlotList _changed = new();

    // Lowest first, so that runs of blocks get runs of slots.
    private readonly PriorityQueue<int, int> _free = new();
    private readonly Stack<int> _unusable = new();
    private CacheSlot[] _entries = [];
    private int _slotsEver;

    private int NewSlot()
    {
        _used++;
        if (_free.Count > 0)
        {
            return _free.Dequeue();
        }
        if (_unusable.Count > 0)
        {
            return _unusable.Pop();
        }
        if (_slotsEver == _entries.Length)
        {
            Array.Resize(ref _entries, (int)Math.Clamp(2L * _slotsEver, 64, Array.MaxLength));
        }
        return _slotsEver++;
    }

    private bool IsNextNew(int slot)
        => slot == (_free.Count > 0 ? _free.Peek() : _unusable.Count > 0 ? _unusable.Peek() : _slotsEver);

    private void Free(int slot)
    {
        Unlink(slot);
        _slots.Remove(_entries[slot].Block);
        _store.Discard((long)slot * _blockSize, _blockSize);
        _free.Enqueue(slot, slot);
        _used--;
    }

    private void Link(int slot, bool isChanged)
    {
        SlotList list = isChanged ? _changed : _unchanged;
        ref CacheSlot entry = ref _entries[slot];
        entry.IsChanged = isChanged;
        entry.Older = list.Newest;
        entry.Newer = -1;
        if (list.Newest < 0)
        {
            list.Oldest = slot;
        }
        else
        {
            _entries[list.Newest].Newer = slot;
        }
        list.Newest = slot;
        list.Count++;
    }

    private void Unlink(int slot)
    {
        ref CacheSlot entry = ref _entries[slot];
        SlotList list = entry.IsChanged ? _changed : _unchanged;
        if (entry.Older < 0)
        {
            list.Oldest = entry.Newer;
        }
        else
        {
            _entries[entry.Older].Newer = entry.Newer;
        }
        if (entry.Newer < 0)
        {
            list.Newest = entry.Older;
        }
        else
        {
            _entries[entry.Newer].Older = entry.Older;
        }
        list.Count--;
    }
}
