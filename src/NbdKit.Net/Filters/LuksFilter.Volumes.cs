using NbdKit.Filters.Luks;

namespace NbdKit.Filters;

// The disks whose keys are known, one for each export.
public sealed partial class LuksFilter
{
    // A plugin may have any number of exports: of those that nobody uses not more than these are remembered.
    private const int MostUnused = 16;

    private readonly Lock _lock = new();
    private readonly SemaphoreSlim _opening = new(1, 1);
    private readonly Dictionary<(string ExportName, bool IsTls), Volume> _volumes = [];

    /// <summary>The key of a disk, found now or before; to be released.</summary>
    internal async ValueTask<Volume> AcquireAsync(
        NbdContext context, VolumeHeader header, NextContext next, CancellationToken cancellationToken)
    {
        (string, bool) key = (context.ExportName, context.IsTls);
        if (TryAcquire(key, header) is { } known)
        {
            return known;
        }
        // One at a time, so that clients who connect again and again do not keep all processors busy.
        await _opening.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (TryAcquire(key, header) is { } found)
            {
                return found;
            }
            Volume volume = await Volume.OpenAsync(header, next, _passphrase, MaxIterations, cancellationToken).ConfigureAwait(false);
            lock (_lock)
            {
                if (_volumes.Remove(key, out Volume? old))
                {
                    Forget(old);
                }
                foreach ((var unused, Volume other) in _volumes.Where(v => v.Value.Users == 0).Skip(MostUnused).ToList())
                {
                    _volumes.Remove(unused);
                    Forget(other);
                }
                volume.Users = 1;
                _volumes.Add(key, volume);
            }
            return volume;
        }
        finally
        {
            _opening.Release();
        }
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

    private Volume? TryAcquire((string, bool) key, VolumeHeader header)
    {
        lock (_lock)
        {
            if (!_volumes.TryGetValue(key, out Volume? volume)
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
