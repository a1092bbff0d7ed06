namespace NbdKit.Filters.Partition;

/// <summary>Where a partition is.</summary>
/// <param name="Scheme">The kind of table that says so: MBR or GPT.</param>
/// <param name="Offset">First byte, counted from the start of the disk.</param>
/// <param name="Length">Number of bytes, more than 0.</param>
internal readonly record struct PartitionRange(string Scheme, long Offset, long Length);
