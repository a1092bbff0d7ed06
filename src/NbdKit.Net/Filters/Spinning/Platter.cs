namespace NbdKit.Filters.Spinning;

/// <summary>
/// Where the heads over one disk are, and until when they move. Each head has an equal range of the disk; they are on one arm, or on one
/// each. Safe for use by several threads.
/// </summary>
internal sealed class Platter
{
    /// <summary>A head that moves no further than this many bytes has not left its track.</summary>
    public const long Track = 128 << 10;

    private readonly Lock _lock = new();
    private readonly TimeProvider _timeProvider;
    private readonly SeekCurve _curve;
    private readonly long _began;
    private readonly long _range;
    private readonly int _heads;

    // Of each arm: how far from the beginning of their ranges its heads are, and when it comes to rest.
    private readonly long[] _positions;
    private readonly TimeSpan[] _rests;

    /// <summary>The contexts that use it; guarded by the filter.</summary>
    public int Users { get; set; }

    public Platter(long size, int heads, bool separate, SeekCurve curve, TimeProvider timeProvider)
    {
        Size = size;
        _timeProvider = timeProvider;
        _curve = curve;
        _began = timeProvider.GetTimestamp();
        _heads = (int)Math.Clamp(size, 1, heads);
        _range = size / _heads;
        _positions = new long[separate ? _heads : 1];
        _rests = new TimeSpan[_positions.Length];
    }

    public long Size { get; }

    /// <summary>Moves a head to an offset, after all movements of its arm that were asked for before.</summary>
    /// <returns>How long it takes until it is there.</returns>
    public TimeSpan Seek(long offset)
    {
        int head = (int)Math.Min(offset / _range, _heads - 1);
        long position = offset - (head * _range);
        // The last one has what is left over.
        long width = head == _heads - 1 ? Size - (head * _range) : _range;
        int arm = _positions.Length == 1 ? 0 : head;
        lock (_lock)
        {
            TimeSpan now = _timeProvider.GetElapsedTime(_began);
            TimeSpan free = _rests[arm] > now ? _rests[arm] : now;
            long distance = Math.Abs(_positions[arm] - position);
            _positions[arm] = position;
            _rests[arm] = distance > Track ? free + _curve.TimeFor((double)distance / width) : free;
            return _rests[arm] - now;
        }
    }
}
