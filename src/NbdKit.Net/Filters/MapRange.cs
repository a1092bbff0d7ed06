namespace NbdKit.Filters;

/// <summary>A range of the disk of a <see cref="MapFilter"/> that lies elsewhere in the layer below.</summary>
/// <param name="Start">First byte of the range, 0 or more.</param>
/// <param name="End">Last byte of the range, which belongs to it; not before <paramref name="Start"/>.</param>
/// <param name="Destination">Where the first byte lies in the layer below, 0 or more.</param>
public readonly record struct MapRange(long Start, long End, long Destination)
{
    /// <summary>Parses <c>START-END:DEST</c>, as nbdkit writes a range; each is a size as <see cref="NbdParse.Size"/> takes it.</summary>
    /// <param name="text">The text.</param>
    /// <exception cref="FormatException">It is no such range, or one that ends before it begins or beyond 2^63-1.</exception>
    public static MapRange Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        string[] parts = text.Split('-', ':');
        if (parts.Length != 3 || text.IndexOf(':') < text.IndexOf('-'))
        {
            throw new FormatException($"'{text}' is not of the form START-END:DEST.");
        }
        var range = new MapRange(NbdParse.Size(parts[0]), NbdParse.Size(parts[1]), NbdParse.Size(parts[2]));
        return range.IsValid
            ? range
            : throw new FormatException($"'{text}' ends before it begins, or too far out.");
    }

    internal bool IsValid => Start >= 0 && End >= Start && End < long.MaxValue && Destination >= 0 && Destination <= long.MaxValue - (End - Start) - 1;
}
