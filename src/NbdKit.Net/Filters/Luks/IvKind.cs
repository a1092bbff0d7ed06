namespace NbdKit.Filters.Luks;

/// <summary>How the number of a sector becomes its initialization vector of 16 bytes.</summary>
internal enum IvKind
{
    /// <summary>The lower 32 bits, little-endian.</summary>
    Plain,

    /// <summary>64 bits, little-endian.</summary>
    Plain64,

    /// <summary>64 bits, big-endian, at the end.</summary>
    Plain64BigEndian,

    /// <summary>As <see cref="Plain64"/>, encrypted with a hash of the key.</summary>
    Essiv,
}
