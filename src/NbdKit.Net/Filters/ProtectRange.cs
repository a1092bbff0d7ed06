namespace NbdKit.Filters;

/// <summary>A range of bytes that <see cref="ProtectFilter"/> protects.</summary>
/// <param name="Start">First byte, 0 or more.</param>
/// <param name="Last">Last byte, which belongs to the range, or null for the end of the disk.</param>
/// <param name="IsComplement">Whether everything outside the range is protected instead.</param>
public readonly record struct ProtectRange(long Start, long? Last = null, bool IsComplement = false)
{
    /// <summary>
    /// Parses nbdkit's <c>START-END</c>, where both ends belong to the range and may be left out, or <c>~START-END</c> for
    /// everything else. Numbers may be anything that <see cref="NbdParse.Size"/> takes.
    /// </summary>
    /// <param name="text">The text.</param>
    /// <exception cref="FormatException">The text is not a range.</exception>
    public static ProtectRange Parse(string text)
    {
        ArgumentNullException.ThrowIfNull(text);
        bool isComplement = text.StartsWith('~');
        string range = isComplement ? text[1..] : text;
        int dash = range.IndexOf('-', StringComparison.Ordinal);
        if (dash < 0)
        {
            throw new FormatException($"'{text}' is not a range of the form START-END or ~START-END.");
        }
        long start = dash == 0 ? 0 : NbdParse.Size(range[..dash]);
        long? last = dash == range.Length - 1 ? null : NbdParse.Size(range[(dash + 1)..]);
        return last < start
            ? throw new FormatException($"'{text}' ends before it begins.")
            : new ProtectRange(start, last, isComplement);
    }
}
