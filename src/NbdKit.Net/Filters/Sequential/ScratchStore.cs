namespace NbdKit.Filters.Sequential;

/// <summary>Where to keep what was read, and how much of it.</summary>
/// <param name="InMemory">Whether in memory; otherwise in a temporary file.</param>
/// <param name="Directory">The directory of the file.</param>
/// <param name="Limit">The most bytes to keep.</param>
internal sealed record ScratchStore(bool InMemory, string Directory, long Limit);
