namespace NbdKit.Filters.Ahead;

/// <summary>The streams of all connections to one export. Writes on any of them take what others have read ahead.</summary>
internal sealed class ReadaheadGroup
{
    private readonly List<ReadaheadStream> _streams = [];
    private int _writes;

    /// <summary>Guards the chunks of all streams.</summary>
    public Lock Lock { get; } = new();

    /// <summary>The number of contexts that use it; guarded by the filter.</summary>
    public int Users { get; set; }

    /// <summary>
    /// Whether a write is running, so that nobody knows what a read that begins now would bring. Guarded by the lock.
    /// </summary>
    public bool IsWriting => _writes > 0;

    public void Add(ReadaheadStream stream)
    {
        lock (Lock)
        {
            _streams.Add(stream);
        }
    }

    public void Remove(ReadaheadStream stream)
    {
        lock (Lock)
        {
            _streams.Remove(stream);
        }
    }

    /// <summary>A range is about to change.</summary>
    public void BeginWrite(long offset, long length)
    {
        lock (Lock)
        {
            _writes++;
            foreach (ReadaheadStream stream in _streams)
            {
                stream.Forget(offset, offset + length);
            }
        }
    }

    public void EndWrite()
    {
        lock (Lock)
        {
            _writes--;
        }
    }
}
