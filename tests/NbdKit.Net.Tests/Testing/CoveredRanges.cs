namespace NbdKit.Tests.Testing;

/// <summary>A set of numbers as ranges that do not touch.</summary>
internal sealed class CoveredRanges
{
    private readonly List<(long Start, long End)> _ranges = [];

    /// <summary>How many numbers it has.</summary>
    public long Count => _ranges.Sum(range => range.End - range.Start);

    public bool Contains(long number) => _ranges.Any(range => number >= range.Start && number < range.End);

    /// <summary>Adds the numbers from the start up to, but without, the end.</summary>
    public void Add(long start, long end)
    {
        if (start >= end)
        {
            return;
        }
        foreach ((long Start, long End) touching in _ranges.Where(range => range.Start <= end && range.End >= start).ToArray())
        {
            start = Math.Min(start, touching.Start);
            end = Math.Max(end, touching.End);
            _ranges.Remove(touching);
        }
        _ranges.Add((start, end));
    }
}
