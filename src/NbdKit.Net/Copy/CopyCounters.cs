namespace NbdKit.Copy;

/// <summary>What a copy has done so far. Changed with interlocked operations only.</summary>
internal sealed class CopyCounters
{
    private long _read;
    private long _written;
    private long _zeroed;
    private long _resumed;
    private long _size;

    public long Read => Volatile.Read(ref _read);

    public long Written => Volatile.Read(ref _written);

    public long Zeroed => Volatile.Read(ref _zeroed);

    public long Resumed => Volatile.Read(ref _resumed);

    /// <summary>Bytes of all pieces that are complete.</summary>
    public long Done => Volatile.Read(ref _size);

    public void AddRead(long count) => Interlocked.Add(ref _read, count);

    public void AddWritten(long count) => Interlocked.Add(ref _written, count);

    public void AddZeroed(long count) => Interlocked.Add(ref _zeroed, count);

    public void AddResumed(long count) => Interlocked.Add(ref _resumed, count);

    public long AddDone(long count) => Interlocked.Add(ref _size, count);
}
