namespace NbdKit.Filters.Caching;

/// <summary>The ends of a list of slots, linked by <see cref="CacheSlot"/> in the order of their use.</summary>
internal sealed class SlotList
{
    /// <summary>The slot that was not used for longest, or -1.</summary>
    public int Oldest { get; set; } = -1;

    /// <summary>The slot that was used last, or -1.</summary>
    public int Newest { get; set; } = -1;

    public int Count { get; set; }
}
