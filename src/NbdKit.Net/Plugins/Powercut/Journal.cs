namespace NbdKit.Plugins.Powercut;

/// <summary>
/// The changes of a disk that are not on stable storage, in the order in which they were made. Its user locks.
/// </summary>
internal sealed class Journal
{
    private readonly SortedDictionary<long, JournalRecord> _records = [];
    private readonly JournalIndex _index = new();
    private readonly HashSet<long> _inFlight = [];
    private long _lastId;

    /// <summary>The sum of what the records count.</summary>
    public long Cost { get; private set; }

    public JournalRecord Add(
        JournalKind kind, object owner, long offset, long length, byte[]? data, long cost, bool inFlight)
    {
        var record = new JournalRecord(++_lastId, kind, owner, offset, length, data, cost);
        _records.Add(record.Id, record);
        _index.Add(record);
        Cost += cost;
        if (inFlight)
        {
            _inFlight.Add(record.Id);
        }
        return record;
    }

    /// <summary>The call that made a record has ended.</summary>
    public void Complete(long id) => _inFlight.Remove(id);

    /// <summary>The numbers of the records whose calls have ended, of one owner or of all.</summary>
    public long[] Completed(object? owner)
        => [.. _records.Values.Where(r => (owner is null || r.Owner == owner) && !_inFlight.Contains(r.Id)).Select(r => r.Id)];

    /// <summary>All records in order.</summary>
    public JournalRecord[] ToArray() => [.. _records.Values];

    /// <summary>The records that are still there of some numbers, which come in order.</summary>
    public List<JournalRecord> Find(long[] ids)
    {
        var found = new List<JournalRecord>(ids.Length);
        foreach (long id in ids)
        {
            if (_records.TryGetValue(id, out JournalRecord? record))
            {
                found.Add(record);
            }
        }
        return found;
    }

    /// <summary>The records that touch a range, in order; null for none.</summary>
    public List<JournalRecord>? Touching(long start, long end) => _records.Count == 0 ? null : _index.Touching(start, end);

    /// <summary>
    /// Records have come to stable storage: they leave, and older ones lose what those have overwritten.
    /// </summary>
    public void Settle(List<JournalRecord> records)
    {
        _index.Remove(records);
        foreach (JournalRecord record in records)
        {
            Forget(record);
        }
        foreach (JournalRecord record in records)
        {
            foreach (JournalRange range in record.Ranges)
            {
                foreach (JournalRecord older in Touching(range.Start, range.End) ?? [])
                {
                    if (older.Id < record.Id)
                    {
                        Replace(older, older.Without(range));
                    }
                }
            }
        }
    }

    public void Clear()
    {
        _records.Clear();
        _index.Clear();
        _inFlight.Clear();
        Cost = 0;
    }

    private void Replace(JournalRecord record, JournalRecord? left)
    {
        _index.Remove(record);
        if (left is null)
        {
            Forget(record);
            return;
        }
        _records[left.Id] = left;
        _index.Add(left);
    }

    private void Forget(JournalRecord record)
    {
        _records.Remove(record.Id);
        _inFlight.Remove(record.Id);
        Cost -= record.Cost;
    }
}
