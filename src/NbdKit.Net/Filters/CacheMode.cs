namespace NbdKit.Filters;

/// <summary>When <see cref="CacheFilter"/> writes to the layer below.</summary>
public enum CacheMode
{
    /// <summary>
    /// Writes stay in the cache until a flush, FUA, the end of the last writable connection, or a lack of space.
    /// </summary>
    WriteBack,

    /// <summary>Writes go below before they complete; the cache only saves reads.</summary>
    WriteThrough,

    /// <summary>
    /// As <see cref="WriteBack"/>, but flushes and FUA do nothing: what was written is lost if the process ends other than
    /// in an orderly way.
    /// </summary>
    Unsafe,
}
