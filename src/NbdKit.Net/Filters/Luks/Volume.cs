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

    /// <summary>Finds the key of a disk. May take seconds, and keeps the thread busy.</summary>
    /// <param name="header">The header of the disk.</param>
    /// <param name="next">The disk.</param>
    /// <param name="passphrase">The passphrase.</param>
    /// <param name="mostIterations">How much work to do at most.</param>
    /// <param name="cancellationToken">Gives up, before the next key slot.</param>
    /// <exception cref="NbdException">There is no key slot for this passphrase.</exception>
    public static async ValueTask<Volume> OpenAsync(
        VolumeHeader header, NextContext next, Secret passphrase, long mostIterations, CancellationToken cancellationToken)
    {
        var disk = new Partition.SectorReader(next, 1);
        List<string> unusable = [.. header.Unusable];
        foreach (KeySlot slot in header.Slots)
        {
            if (slot.Cost > mostIterations)
            {
                unusable.Add($"{slot.Name} would take more iterations than are allowed");
                continue;
            }
            mostIterations -= slot.Cost;
            using var area = new Secret(slot.AreaBytes);
            await disk.ReadAsync(slot.Offset, area.Memory, cancellationToken).ConfigureAwait(false);
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            cancellationToken.ThrowIfCancellationRequested();
            Secret? key = slot.Open(passphrase.Span, area.Span);
            if (key is not null)
            {
                return new Volume(header, key);
            }
        }
        throw new NbdException(
            NbdError.PermissionDenied,
            "the passphrase opens no key slot of the encrypted disk"
            + (unusable.Count == 0 ? "" : $" that could be tried: {string.Join(", ", unusable)}"));
    }

    public void Dispose()
    {
        Cipher.Dispose();
        _key.Dispose();
    }
}
