namespace NbdKit.Filters.Ext2;

/// <summary>A block of metadata as it was read. Its bytes never change.</summary>
internal sealed class MetadataBlock
{
    private ulong _validFor;

    public MetadataBlock(long number, byte[] data)
    {
        Number = number;
        Data = data;
    }

    public long Number { get; }

    public byte[] Data { get; }

    /// <summary>
    /// What the content was last found to be right for. A hostile image may use one block for several things.
    /// </summary>
    public ulong ValidFor
    {
        get => Volatile.Read(ref _validFor);
        set => Volatile.Write(ref _validFor, value);
    }
}
