namespace NbdKit.Filters.Caching;

/// <summary>What is in one slot of the store, and its neighbours in the list of its kind.</summary>
internal struct CacheSlot
{
    public long Block;

    public int Older;

    public int Newer;

    public bool IsChanged;
}
