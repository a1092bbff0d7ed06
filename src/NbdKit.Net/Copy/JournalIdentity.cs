namespace NbdKit.Copy;

/// <summary>What must be the same for a copy to be resumed.</summary>
/// <param name="SourceSize">Size of the source in bytes.</param>
/// <param name="DestinationSize">Size of the destination in bytes.</param>
/// <param name="Granularity">What the begins of all ranges are multiples of.</param>
/// <param name="Name">What the host calls the two sides.</param>
internal readonly record struct JournalIdentity(long SourceSize, long DestinationSize, int Granularity, string Name)
{
    /// <summary>Whether a range is one that this copy can have made.</summary>
    public bool Allows(CopyRange range)
        => range.Offset >= 0 && range.Length > 0 && range.Length <= SourceSize - range.Offset
            && range.Offset % Granularity == 0 && (range.End % Granularity == 0 || range.End == SourceSize);

    /// <summary>Says in what another identity differs, or null.</summary>
    public string? Difference(in JournalIdentity found)
        => found.SourceSize != SourceSize ? $"its source has {found.SourceSize} bytes, and this one {SourceSize}"
            : found.DestinationSize != DestinationSize
                ? $"its destination has {found.DestinationSize} bytes, and this one {DestinationSize}"
            : found.Granularity != Granularity ? $"it is in blocks of {found.Granularity} bytes, and this copy in blocks of {Granularity}"
            : found.Name != Name ? $"it is of '{found.Name}', and this copy of '{Name}'"
            : null;
}
