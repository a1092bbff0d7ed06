namespace NbdKit.Buffers;

/// <summary>Where the content of a block of an overlay is. Two bits in a <see cref="BlockMap"/>.</summary>
internal enum BlockState : byte
{
    /// <summary>Nothing in the overlay: the content is that of the layer below.</summary>
    Below = 0,

    /// <summary>In the store of the overlay.</summary>
    Stored = 1,

    /// <summary>Nowhere: it reads as zeroes.</summary>
    Trimmed = 2,

    /// <summary>In the store, and to be written to the layer below: what a cache holds back.</summary>
    Changed = 3,
}
