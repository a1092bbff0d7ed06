using System.Globalization;

namespace NbdKit.Filters.Ddrescue;

/// <summary>
/// Which ranges of a disk GNU ddrescue has rescued, as its map file ("Mapfile structure" in its manual) says:
/// </summary>
/// <remarks>
/// <code>
/// # a comment
/// 0x00120000     +               1        where it was, its status, and the pass
/// 0x00000000  0x00117000  +               first byte, bytes, and what the range is:
/// 0x00117000  0x00000200  -               + rescued, - bad sector, / not scraped, * not trimmed, ? not tried
/// </code>
/// </remarks>
internal sealed class RescueMap
{
    private const string Statuses = "?*/-+";

    // More than enough for three fields, and not so much that what is no map becomes millions of them.
    private const int LongestLine = 1000;

    // Ranges that were rescued, in order, with something between any two of them.
    private readonly List<(long Start, long End)> _good = [];

    private RescueMap()
    {
    }

    /// <summary>Reads a map.</summary>
    /// <exception cref="FormatException">It is not one; the message says in which line.</exception>
    public static RescueMap Parse(TextReader text)
    {
        var map = new RescueMap();
        bool hasStatus = false;
        long end = 0;
        for (int number = 1; text.ReadLine() is { } line; number++)
        {
            int comment = line.IndexOf('#', StringComparison.Ordinal);
            string content = comment < 0 ? line : line[..comment];
            string[] fields = content.Length <= LongestLine
                ? content.Split((char[]?)null, StringSplitOptions.RemoveEmptyEntries)
                : throw Wrong(number, "is too long");
            if (fields.Length == 0)
            {
                continue;
            }
            if (!hasStatus)
            {
                // Where ddrescue was, and what it did: nothing that matters here.
                hasStatus = fields.Length is 2 or 3 && fields[1].Length == 1 ? true : throw Wrong(number, "is not the status of a map");
                Number(fields[0], number);
                continue;
            }
            if (fields.Length != 3 || fields[2].Length != 1 || !Statuses.Contains(fields[2][0], StringComparison.Ordinal))
            {
                throw Wrong(number, "is not of the form 'position size status'");
            }
            long start = Number(fields[0], number);
            long length = Number(fields[1], number);
            if (start < end || length > long.MaxValue - start)
            {
                throw Wrong(number, start < end ? "begins before the range above it ends" : "ends beyond 2^63-1");
            }
            end = start + length;
            if (fields[2] == "+" && length > 0)
            {
                map.Add(start, end);
            }
        }
        return hasStatus ? map : throw new FormatException("There is no status line.");
    }

    /// <summary>Whether all of a range was rescued.</summary>
    public bool IsGood(long offset, long length)
        => Piece(offset, offset + length) is { IsGood: true } piece && piece.End == offset + length;

    /// <summary>How far from an offset, up to an end, all is good or all is bad.</summary>
    public (long End, bool IsGood) Piece(long offset, long end)
    {
        int low = 0;
        int high = _good.Count;
        while (low < high)
        {
            int middle = (low + high) / 2;
            if (_good[middle].End <= offset)
            {
                low = middle + 1;
            }
            else
            {
                high = middle;
            }
        }
        if (low == _good.Count)
        {
            return (end, false);
        }
        (long start, long until) = _good[low];
        return start <= offset ? (Math.Min(until, end), true) : (Math.Min(start, end), false);
    }

    private void Add(long start, long end)
    {
        if (_good.Count > 0 && _good[^1].End == start)
        {
            _good[^1] = (_good[^1].Start, end);
        }
        else
        {
            _good.Add((start, end));
        }
    }

    private static long Number(string text, int line)
    {
        try
        {
            return NbdParse.Integer(text, 0);
        }
        catch (FormatException e)
        {
            throw new FormatException(string.Create(CultureInfo.InvariantCulture, $"Line {line}: {e.Message}"), e);
        }
    }

    private static FormatException Wrong(int line, string what)
        => new(string.Create(CultureInfo.InvariantCulture, $"Line {line} {what}."));
}
