namespace NbdKit.Plugins.Partitioning;

/// <summary>A piece of a partition table, and where it is.</summary>
internal readonly record struct TablePiece(long Offset, byte[] Data)
{
    public long End => Offset + Data.Length;
}
