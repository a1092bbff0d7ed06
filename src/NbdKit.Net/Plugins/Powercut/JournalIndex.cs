namespace NbdKit.Plugins.Powercut;

/// <summary>Finds records by their ranges. Its user locks.</summary>
internal sealed class JournalIndex
{
    private const int BucketShift = 16;

    // Records that are in more buckets than this are in a list of their own.
    private const int MostBuckets = 64;

    // To look for fewer records than this in their buckets is cheaper than to look at every bucket.
    private const int FewRecords = 16;

    private readonly Dictionary<long, List<JournalRecord>> _buckets = [];
    private readonly List<JournalRecord> _wide = [];

    public void Add(JournalRecord record)
    {
        if (IsWide(record))
        {
            _wide.Add(record);
            return;
        }
        for (long bucket = First(record); bucket <= Last(record); bucket++)
        {
            if (!_buckets.TryGetValue(bucket, out List<JournalRecord>? records))
            {
                _buckets.Add(bucket, records = []);
            }
            records.Add(record);
        }
    }

    public void Remove(List<JournalRecord> records)
    {
        if (records.Count < FewRecords)
        {
            records.ForEach(Remove);
            return;
        }
        var gone = new HashSet<JournalRecord>(records);
        _wide.RemoveAll(gone.Contains);
        foreach ((long bucket, List<JournalRecord> there) in _buckets)
        {
            there.RemoveAll(gone.Contains);
            if (there.Count == 0)
            {
                // The one change that a dictionary takes while it is enumerated.
                _buckets.Remove(bucket);
            }
        }
    }

    public void Remove(JournalRecord record)
    {
        if (IsWide(record))
        {
            _wide.Remove(record);
            return;
        }
        for (long bucket = First(record); bucket <= Last(record); bucket++)
        {
            List<JournalRecord> records = _buckets[bucket];
            records.Remove(record);
            if (records.Count == 0)
            {
                _buckets.Remove(bucket);
            }
        }
    }

    public void Clear()
    {
        _buckets.Clear();
        _wide.Clear();
    }

    /// <summary>The records that touch a range, in order; null for none.</summary>
    public List<JournalRecord>? Touching(long start, long end)
    {
        List<JournalRecord>? found = null;
        long first = start >> BucketShift;
        long last = (end - 1) >> BucketShift;
        Collect(_wide, start, end, long.MinValue, 0, ref found);
        if (last - first >= _buckets.Count)
        {
            foreach ((long bucket, List<JournalRecord> records) in _buckets)
            {
                if (bucket >= first && bucket <= last)
                {
                    Collect(records, start, end, bucket, first, ref found);
                }
            }
        }
        else
        {
            for (long bucket = first; bucket <= last; bucket++)
            {
                if (_buckets.TryGetValue(bucket, out List<JournalRecord>? records))
                {
                    Collect(records, start, end, bucket, first, ref found);
                }
            }
        }
        if (found is { Count: > 1 })
        {
            found.Sort((one, other) => one.Id.CompareTo(other.Id));
        }
        return found;
    }

    private static void Collect(
        List<JournalRecord> records, long start, long end, long bucket, long first, ref List<JournalRecord>? found)
    {
        foreach (JournalRecord record in records)
        {
            // One that is in several buckets is taken from the first of them.
            if (record.Touches(start, end) && (bucket < 0 || bucket == Math.Max(first, First(record))))
            {
                (found ??= []).Add(record);
            }
        }
    }

    private static long First(JournalRecord record) => record.Start >> BucketShift;

    private static long Last(JournalRecord record) => (record.End - 1) >> BucketShift;

    private static bool IsWide(JournalRecord record) => Last(record) - First(record) >= MostBuckets;
}
