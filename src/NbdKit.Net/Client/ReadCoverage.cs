namespace NbdKit.Client;

/// <summary>
/// Which bytes of a read have arrived, in whatever order: so that none arrives twice and none is missing. Used by the receiving
/// loop alone.
/// </summary>
internal sealed class ReadCoverage
{
    /// <summary>
    /// The pieces that may lie apart at a time. Servers send chunks in order or nearly so; one that sends every second byte
    /// first must not cost memory without end.
    /// </summary>
    public const int MaxPieces = 1 << 14;

    // Sorted, and never touching each other: what is in order is a single piece however many chunks it came in.
    private readonly List<(long From, long To)> _pieces = [];

    /// <summary>Whether all of a read has arrived.</summary>
    public bool IsComplete(long length)
        => length == 0 ? _pieces.Count == 0 : _pieces.Count == 1 && _pieces[0] == (0, length);

    /// <summary>Whether there are more pieces than a server has reason to send.</summary>
    public bool IsScattered => _pieces.Count > MaxPieces;

    public void Clear() => _pieces.Clear();

    /// <summary>Notes a range that has arrived; false if a part of it had arrived before.</summary>
    public bool TryAdd(long from, long length)
    {
        long to = from + length;
        int at = PositionOf(from);
        bool joinsLeft = at > 0 && _pieces[at - 1].To == from;
        bool joinsRight = at < _pieces.Count && _pieces[at].From == to;
        if ((at > 0 && _pieces[at - 1].To > from) || (at < _pieces.Count && _pieces[at].From < to))
        {
            return false;
        }
        switch (joinsLeft, joinsRight)
        {
            case (true, true):
                _pieces[at - 1] = (_pieces[at - 1].From, _pieces[at].To);
                _pieces.RemoveAt(at);
                break;
            case (true, false):
                _pieces[at - 1] = (_pieces[at - 1].From, to);
                break;
            case (false, true):
                _pieces[at] = (from, _pieces[at].To);
                break;
            default:
                _pieces.Insert(at, (from, to));
                break;
        }
        return true;
    }

    /// <summary>The position of the first piece that begins at or after a byte.</summary>
    private int PositionOf(long from)
    {
        int low = 0;
        int high = _pieces.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_pieces[middle].From < from)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }
        return low;
    }
}
