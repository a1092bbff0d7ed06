namespace NbdKit.Plugins;

/// <summary>The kinds of partition table that <see cref="PartitioningPlugin"/> makes.</summary>
public enum PartitioningType
{
    /// <summary>MBR for up to four partitions on a disk that it can describe (2^32-1 sectors); else GPT.</summary>
    Auto,

    /// <summary>
    /// A master boot record. Of more than four partitions, the fourth and all after it are logical ones, with the numbers from 5.
    /// </summary>
    Mbr,

    /// <summary>A GUID partition table, with its backup at the end of the disk.</summary>
    Gpt,
}
