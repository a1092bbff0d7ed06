namespace NbdKit.Copy;

/// <summary>A stretch of the source of one kind, from where the one before it ended.</summary>
/// <param name="End">The first byte after it.</param>
/// <param name="IsZero">Whether it reads as zeroes.</param>
internal readonly record struct PlanRun(long End, bool IsZero);
