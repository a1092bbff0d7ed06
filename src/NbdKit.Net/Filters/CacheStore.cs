namespace NbdKit.Filters;

/// <summary>Where <see cref="CacheFilter"/> keeps its blocks.</summary>
public enum CacheStore
{
    /// <summary>In a temporary file that nobody else can open and that is gone with the process, however it ends.</summary>
    File,

    /// <summary>In memory: faster, and bounded by the memory there is. Best with a limit.</summary>
    Memory,
}
