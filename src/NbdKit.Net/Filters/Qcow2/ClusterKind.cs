namespace NbdKit.Filters.Qcow2;

/// <summary>What a cluster, or a part of it, is.</summary>
internal enum ClusterKind
{
    /// <summary>Not in this image: what the backing file has there, or zeroes.</summary>
    Unallocated,

    /// <summary>Zeroes that take no space.</summary>
    Zero,

    /// <summary>Zeroes, with space that is kept for them.</summary>
    ReservedZero,

    /// <summary>As it is.</summary>
    Data,

    /// <summary>Compressed.</summary>
    Compressed,
}
