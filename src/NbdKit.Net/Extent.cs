namespace NbdKit;

/// <summary>A range of an export that has one status in one meta context.</summary>
/// <param name="Offset">First byte.</param>
/// <param name="Length">Number of bytes, more than 0.</param>
/// <param name="Status">What the range is.</param>
public readonly record struct Extent(long Offset, long Length, ExtentStatus Status)
{
    /// <summary>The first byte after the extent.</summary>
    public long End => Offset + Length;
}
