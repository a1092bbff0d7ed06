using NbdKit.Filters.Luks;
using NbdKit.Filters.Partition;

namespace NbdKit.Filters;

// The disks whose keys are known, one for each export.
public sealed partial class LuksFilter
{
    // A plugin may have any number of exports: of those that nobody uses not more than these are remembered.
    private const int MostUnused = 16;

    private readonly Lock _lock = new();
    private readonly SemaphoreSlim _opening = new(1, 1);
    private readonly Dictionary<(string ExportName, bool IsTls), Volume> _volumes = [];

    /// <summary>A disk with its key, found now or before; to be released.</summary>
    /// <exception cref="NbdException">The passphrase opens no key slot.</exception>
    internal async ValueTask<Volume> AcquireAsync(
        NbdContext context, VolumeHeader header, NextContext next, CancellationToken cancellationToken)
    {
        (string, bool) export = (context.ExportName, context.IsTls);
        if (TryAcquire(export, header) is { } known)
        {
            return known;
        }
        var disk = new SectorReader(next, 1);
        List<string> unusable = [.. header.Unusable];
        long left = MaxIterations;
        foreach (KeySlot slot in header.Slots)
        {
            if (slot.Cost > left)
            {
                unusable.Add($"{slot.Name} would take more iterations than are allowed");
                continue;
            }
            if (slot.Derivation.MemoryBytes > MaxMemory)
            {
                unusable.Add($"{slot.Name} would take more memory than is allowed ({slot.Derivation.MemoryBytes} bytes)");
                continue;
            }
            left -= slot.Cost;
            using var area = new Secret(slot.AreaBytes);
            await disk.ReadAsync(slot.Offset, area.Memory, cancellationToken).ConfigureAwait(false);
            Volume? volume = await TryOpenAsync(export, header, slot, area, cancellationToken).ConfigureAwait(false);
            if (volume is not null)
            {
                return volume;
            }
        }
        throw new NbdException(
            NbdError.PermissionDenied,
            "the passphrase opens no key slot of the encrypted disk"
            + (unusable.Count == 0 ? "" : $" that could be tried: {string.Join(", ", unusable)}"));
    }

    /// <summary>Ends one use.</summary>
    internal void Release(Volume volume)
    {
        lock (_lock)
        {
            if (--volume.Users == 0 && volume.IsForgotten)
            {
                volume.Dispose();
            }
        }
    }

    private async ValueTask<Volume?> TryOpenAsync(
        (string, bool) export, VolumeHeader header, KeySlot slot, Secret area, CancellationToken cancellationToken)
    {
        // One at a time, so that clients who connect again and again do not keep all processors busy.
        await _opening.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (TryAcquire(export, header) is { } found)
            {
                return found;
            }
            // It takes seconds, and the caller may be a thread that others wait for.
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            return slot.Open(_passphrase.Span, area.Span) is { } key ? Add(export, new Volume(header, key)) : null;
        }
        finally
        {
            _opening.Release();
        }
    }

    private Volume Add((string, bool) export, Volume volume)
    {
        lock (_lock)
        {
            if (_volumes.Remove(export, out Volume? old))
            {
                Forget(old);
            }
            foreach (((string, bool) unused, Volume other) in _volumes.Where(v => v.Value.Users == 0).Skip(MostUnused).ToList())
            {
                _volumes.Remove(unused);
                Forget(other);
            }
            volume.Users = 1;
            _volumes.Add(export, volume);
            return volume;
        }
    }

    private Volume? TryAcquire((string, bool) export, VolumeHeader header)
    {
        lock (_lock)
        {
            if (!_volumes.TryGetValue(export, out Volume? volume)
                || !volume.Header.Fingerprint.AsSpan().SequenceEqual(header.Fingerprint))
            {
                return null;
            }
            volume.Users++;
            return volume;
        }
    }

    private void ForgetAll()
    {
        lock (_lock)
        {
            foreach (Volume volume in _volumes.Values)
            {
                Forget(volume);
            }
            _volumes.Clear();
        }
    }

    private static void Forget(Volume volume)
    {
        volume.IsForgotten = true;
        if (volume.Users == 0)
        {
            volume.Dispose();
        }
    }
}
