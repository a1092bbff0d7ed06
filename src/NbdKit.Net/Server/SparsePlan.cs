namespace NbdKit.Server;

/// <summary>
/// How the reply to a read is divided into holes and data. Holes are only told where that is worth it: long enough, and with
/// borders that suit every client ("Structured reply types": chunks at multiples of 512).
/// </summary>
internal sealed class SparsePlan
{
    /// <summary>A hole that is shorter is sent as zeroes; every chunk costs both sides something.</summary>
    public const int ShortestHole = 4096;

    private const long Granularity = 512;

    private readonly List<Extent> _pieces = [];

    /// <summary>The pieces in order, without gaps; data, or holes that read as zeroes.</summary>
    public IReadOnlyList<Extent> Pieces => _pieces;

    public int Holes { get; private set; }

    public long DataBytes { get; private set; }

    public static bool IsHole(Extent piece) => piece.Status != ExtentStatus.Data;

    /// <summary>Divides a range. What the extents do not cover is data.</summary>
    /// <param name="offset">First byte of the range.</param>
    /// <param name="length">Its length in bytes.</param>
    /// <param name="extents">What is known of it; the first one begins at <paramref name="offset"/>.</param>
    /// <param name="minimumBlock">The alignment that the layers ask for, in bytes.</param>
    public void Build(long offset, long length, ExtentList extents, long minimumBlock)
    {
        _pieces.Clear();
        Holes = 0;
        DataBytes = 0;
        long granularity = Math.Max(Granularity, minimumBlock);
        long end = offset + length;
        long at = offset;
        for (int i = 0; i < extents.Count; i++)
        {
            Extent extent = extents[i];
            if ((extent.Status & ExtentStatus.Zero) == 0)
            {
                continue;
            }
            long from = extent.Offset == offset ? offset : (extent.Offset + granularity - 1) & -granularity;
            long to = extent.End >= end ? end : extent.End & -granularity;
            if (to - from >= Math.Min(ShortestHole, length))
            {
                Add(at, from - at, ExtentStatus.Data);
                Add(from, to - from, ExtentStatus.Hole | ExtentStatus.Zero);
                at = to;
            }
        }
        Add(at, end - at, ExtentStatus.Data);
    }

    /// <summary>
    /// Makes zeroes of the holes that are sent as data: whoever read them left them as they were, with anything in them.
    /// </summary>
    public void ClearHolesInData(Span<byte> bytes, long offset, ExtentList extents)
    {
        int piece = 0;
        for (int i = 0; i < extents.Count; i++)
        {
            Extent extent = extents[i];
            if ((extent.Status & ExtentStatus.Zero) == 0)
            {
                continue;
            }
            while (_pieces[piece].End <= extent.Offset)
            {
                piece++;
            }
            for (int j = piece; j < _pieces.Count && _pieces[j].Offset < extent.End; j++)
            {
                if (!IsHole(_pieces[j]))
                {
                    long from = Math.Max(extent.Offset, _pieces[j].Offset);
                    long to = Math.Min(extent.End, _pieces[j].End);
                    bytes[(int)(from - offset)..(int)(to - offset)].Clear();
                }
            }
        }
    }

    private void Add(long offset, long length, ExtentStatus status)
    {
        if (length == 0)
        {
            return;
        }
        _pieces.Add(new Extent(offset, length, status));
        Holes += status == ExtentStatus.Data ? 0 : 1;
        DataBytes += status == ExtentStatus.Data ? length : 0;
    }
}
