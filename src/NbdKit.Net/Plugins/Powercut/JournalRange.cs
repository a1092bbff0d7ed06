namespace NbdKit.Plugins.Powercut;

/// <summary>A range of a disk, from a byte up to another, exclusive.</summary>
internal readonly record struct JournalRange(long Start, long End)
{
    public bool Overlaps(long start, long end) => Start < end && start < End;
}
