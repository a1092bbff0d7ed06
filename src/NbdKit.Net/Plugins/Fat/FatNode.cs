using NbdKit.Native;

namespace NbdKit.Plugins.Fat;

/// <summary>A file or directory of the tree, and where it lies on the disk.</summary>
internal sealed class FatNode
{
    /// <summary>Its path on the host.</summary>
    public required string Path { get; init; }

    /// <summary>Its name; empty for the root.</summary>
    public required string Name { get; init; }

    public required DateTime Modified { get; init; }

    /// <summary>Which file it was (Linux), so that another in its place is noticed.</summary>
    public FileFacts Facts { get; init; }

    public FatNode? Parent { get; init; }

    /// <summary>The entries of a directory in the order of their names; null for a file.</summary>
    public List<FatNode>? Children { get; init; }

    /// <summary>Its short name as stored: 8 and 3 bytes, padded with spaces.</summary>
    public byte[] ShortName { get; set; } = [];

    /// <summary>Whether the name is stored in entries for long names too.</summary>
    public bool HasLongName { get; set; }

    /// <summary>Its size in bytes.</summary>
    public long Size { get; set; }

    /// <summary>Its first cluster; 0 if it is empty.</summary>
    public uint FirstCluster { get; set; }

    /// <summary>The number of clusters, which follow each other.</summary>
    public uint Clusters { get; set; }

    /// <summary>The entries of a directory as stored.</summary>
    public byte[]? Bytes { get; set; }

    /// <summary>The number of 32-byte entries that it takes in its directory.</summary>
    public int Slots => 1 + (HasLongName ? (Name.Length + FatDirectory.CharactersOfEntry - 1) / FatDirectory.CharactersOfEntry : 0);
}
