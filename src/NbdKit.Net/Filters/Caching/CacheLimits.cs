namespace NbdKit.Filters.Caching;

/// <summary>How large a cache may become.</summary>
/// <param name="MaxSize">The largest size of its store in bytes.</param>
/// <param name="HighThreshold">The percentage of that above which it makes room in the background.</param>
/// <param name="LowThreshold">The percentage at which it stops doing so.</param>
internal sealed record CacheLimits(long MaxSize, int HighThreshold, int LowThreshold);
