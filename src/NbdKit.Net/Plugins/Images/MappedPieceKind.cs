namespace NbdKit.Plugins.Images;

/// <summary>Where the bytes of a piece of an image's disk are.</summary>
internal enum MappedPieceKind
{
    /// <summary>Nowhere: they are zeroes.</summary>
    Hole,

    /// <summary>In a chain, as they are, and allocated.</summary>
    Data,

    /// <summary>In a chain, as they are; the chain knows which of them are holes.</summary>
    Nested,

    /// <summary>In the image, compressed.</summary>
    Packed,
}
