using System.Collections;

namespace NbdKit;

/// <summary>
/// The extents that a layer reports for a window of its export, with nbdkit's rules: they come in order and without gaps,
/// what lies outside the window is clipped, neighbours of equal status become one.
/// </summary>
/// <remarks>
/// Created by whoever asks; filled by the layer that answers, which may stop early, and may go beyond the requested range
/// up to the end of the window. Not safe for use by several threads at once.
/// </remarks>
public sealed class ExtentList : IReadOnlyList<Extent>
{
    /// <summary>The meta context that every export of a plugin has.</summary>
    public const string BaseAllocation = "base:allocation";

    /// <summary>
    /// The meta context of QEMU that tells in which of the layers that make up a disk a range is allocated: 0 none, 1 the topmost, 2
    /// the one below it, and so on. <see cref="NbdKit.Filters.CowFilter"/> and the plugins made of other chains have it.
    /// </summary>
    public const string AllocationDepth = "qemu:allocation-depth";

    /// <summary>The number of extents that a list takes by default.</summary>
    public const int DefaultMaximumCount = 131_072;

    private readonly List<Extent> _extents = [];
    private readonly int _maximumCount;
    private readonly ExtentStatus _mask;
    private long _next;

    /// <summary>Creates an empty list for a window.</summary>
    /// <param name="start">First byte of the window; the first extent that is kept begins here.</param>
    /// <param name="end">First byte after the window; usually the size of the export.</param>
    /// <param name="metaContext">The meta context asked for.</param>
    /// <param name="maximumCount">Extents beyond this number are dropped and <see cref="IsFull"/> becomes true.</param>
    /// <exception cref="ArgumentOutOfRangeException">The window is negative or empty, or the count is less than 1.</exception>
    public ExtentList(
        long start, long end, string metaContext = BaseAllocation, int maximumCount = DefaultMaximumCount)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(start);
        ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(end, start);
        ArgumentException.ThrowIfNullOrEmpty(metaContext);
        ArgumentOutOfRangeException.ThrowIfLessThan(maximumCount, 1);
        MetaContext = metaContext;
        _maximumCount = maximumCount;
        Reset(start, end);
        // Bits that base:allocation does not define must not keep neighbours apart that are alike to every client.
        _mask = metaContext == BaseAllocation ? ExtentStatus.Hole | ExtentStatus.Zero : (ExtentStatus)ulong.MaxValue;
    }

    /// <summary>First byte of the window.</summary>
    public long Start { get; private set; }

    /// <summary>First byte after the window.</summary>
    public long End { get; private set; }

    /// <summary>The name of the meta context that the extents are asked for, such as <c>base:allocation</c>.</summary>
    public string MetaContext { get; }

    /// <summary>Whether the number of extents is not limited: nothing that is added is ever dropped.</summary>
    internal bool IsUnlimited => _maximumCount == int.MaxValue;

    /// <summary>The number of extents kept.</summary>
    public int Count => _extents.Count;

    /// <summary>Whether the list takes no more extents; a layer may stop adding then.</summary>
    public bool IsFull => _extents.Count >= _maximumCount || Covered >= End;

    /// <summary>The first byte of the window for which nothing is known yet.</summary>
    public long Covered => _extents.Count == 0 ? Start : _extents[^1].End;

    /// <summary>The extent at a position in the list.</summary>
    /// <param name="index">Position, from 0.</param>
    public Extent this[int index] => _extents[index];

    /// <summary>Adds the next extent.</summary>
    /// <param name="offset">First byte: exactly where the extent added before ended.</param>
    /// <param name="length">Number of bytes; an extent of 0 bytes is ignored.</param>
    /// <param name="status">What the range is.</param>
    /// <exception cref="ArgumentException">
    /// The extents are not contiguous, the first one begins after the start of the window, or the range is negative or ends
    /// beyond 2^63-1.
    /// </exception>
    public void Add(long offset, long length, ExtentStatus status)
    {
        if (offset < 0 || length < 0 || length > long.MaxValue - offset)
        {
            throw new ArgumentException($"An extent of {length} bytes at {offset} is not a range of an export.");
        }
        if (_next >= 0 && offset != _next)
        {
            throw new ArgumentException(
                $"Extents must be contiguous: one at {offset} was added where one at {_next} is due.", nameof(offset));
        }
        if (length == 0)
        {
            return;
        }
        if (_next < 0 && offset > Start)
        {
            throw new ArgumentException(
                $"The first extent begins at {offset}, after the start of the window at {Start}.", nameof(offset));
        }
        status &= _mask;
        _next = offset + length;
        long from = Math.Max(offset, Start);
        long to = Math.Min(_next, End);
        if (from >= to)
        {
            return;
        }
        if (_extents.Count > 0 && _extents[^1].Status == status && _extents[^1].End == from)
        {
            _extents[^1] = _extents[^1] with { Length = to - _extents[^1].Offset };
        }
        else if (_extents.Count < _maximumCount && from == Covered)
        {
            _extents.Add(new Extent(from, to - from, status));
        }
    }

    /// <summary>Empties the list, for another window in the same meta context.</summary>
    internal void Reset(long start, long end)
    {
        _extents.Clear();
        _next = -1;
        Start = start;
        End = end;
    }

    /// <summary>Enumerates the extents in order.</summary>
    public IEnumerator<Extent> GetEnumerator() => _extents.GetEnumerator();

    IEnumerator IEnumerable.GetEnumerator() => GetEnumerator();
}
