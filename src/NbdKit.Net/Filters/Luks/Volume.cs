namespace NbdKit.Filters.Luks;

/// <summary>A disk whose key is known; shared by all contexts of its export.</summary>
internal sealed class Volume : IDisposable
{
    private readonly Secret _key;

    public Volume(VolumeHeader header, Secret key)
    {
        Header = header;
        _key = key;
        Cipher = new SectorCipher(header.Cipher, key, header.SectorSize, header.FirstSector);
    }

    public VolumeHeader Header { get; }

    public SectorCipher Cipher { get; }

    /// <summary>The number of contexts that use it; guarded by the filter.</summary>
    public int Users { get; set; }

    /// <summary>Whether its last user is to dispose of it; guarded by the filter.</summary>
    public bool IsForgotten { get; set; }

    public void Dispose()
    {
        Cipher.Dispose();
        _key.Dispose();
    }
}
