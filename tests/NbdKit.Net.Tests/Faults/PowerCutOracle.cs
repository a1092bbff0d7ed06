using System.Runtime.InteropServices;

namespace NbdKit.Tests.Faults;

/// <summary>
/// Knows what a client was promised, and judges images by that. A sector must have one value as a whole: that of the last
/// change that is durable, or of any that had not been acknowledged when that one was asked for. After a trim it may be
/// anything that was ever there, and zeroes.
/// </summary>
internal sealed class PowerCutOracle
{
    public const int SectorSize = 512;

    /// <summary>What every sector holds at first.</summary>
    public const ushort Initial = 1;

    private readonly Lock _lock = new();
    private readonly List<PowerCutChange>[] _changes;
    private readonly List<PowerCutChange> _notDurable = [];
    private readonly bool _keepsPromises;
    private readonly bool _multiConn;
    private long _clock;

    /// <param name="sectors">The size of the disk.</param>
    /// <param name="keepsPromises">Whether FUA and flushes mean anything.</param>
    /// <param name="multiConn">Whether a flush is for all contexts.</param>
    public PowerCutOracle(int sectors, bool keepsPromises, bool multiConn)
    {
        var first = new PowerCutChange(null, this, 0) { Acknowledged = 0, Durable = 0 };
        _changes = [.. Enumerable.Range(0, sectors).Select(_ => new List<PowerCutChange> { first })];
        _keepsPromises = keepsPromises;
        _multiConn = multiConn;
    }

    /// <summary>A moment: what is durable then must be in an image that is taken later.</summary>
    public long Now
    {
        get
        {
            lock (_lock)
            {
                return ++_clock;
            }
        }
    }

    public PowerCutChange Issue(PowerCutStep step, object context)
    {
        lock (_lock)
        {
            var change = new PowerCutChange(step, context, ++_clock);
            for (int sector = step.Sector; sector < step.Sector + step.Count; sector++)
            {
                _changes[sector].Add(change);
            }
            return change;
        }
    }

    public void Acknowledge(PowerCutChange change)
    {
        lock (_lock)
        {
            change.Acknowledged = ++_clock;
            if (_keepsPromises && (change.Step!.Flags & RequestFlags.Fua) != 0)
            {
                change.Durable = change.Acknowledged;
            }
            else
            {
                _notDurable.Add(change);
            }
        }
    }

    /// <summary>A flush that was asked for at a moment was acknowledged.</summary>
    public void AcknowledgeFlush(object context, long issued)
    {
        lock (_lock)
        {
            long now = ++_clock;
            if (_keepsPromises)
            {
                _notDurable.RemoveAll(change =>
                {
                    bool isCovered = change.Acknowledged < issued && (_multiConn || change.Context == context);
                    change.Durable = isCovered ? now : change.Durable;
                    return isCovered;
                });
            }
        }
    }

    /// <summary>Judges what a cut left.</summary>
    /// <param name="image">The disk.</param>
    /// <param name="since">A moment before the cut.</param>
    /// <param name="live">Whether all that was acknowledged must be there: what a client reads without a cut.</param>
    /// <returns>What is wrong, or null.</returns>
    public string? Judge(ReadOnlySpan<byte> image, long since, bool live = false)
    {
        lock (_lock)
        {
            for (int sector = 0; sector < _changes.Length; sector++)
            {
                ReadOnlySpan<ushort> words = MemoryMarshal.Cast<byte, ushort>(image.Slice(sector * SectorSize, SectorSize));
                if (words.IndexOfAnyExcept(words[0]) >= 0)
                {
                    return $"sector {sector} is torn: it has {string.Join(" and ", words.ToArray().Distinct())}";
                }
                if (!IsAllowed(_changes[sector], words[0], since, live, out long floor))
                {
                    return $"sector {sector} has {words[0]}; of its changes {Text(_changes[sector], since)}, "
                        + $"those after the moment {floor} are allowed";
                }
            }
            return null;
        }
    }

    private static bool IsAllowed(List<PowerCutChange> changes, ushort value, long since, bool live, out long floor)
    {
        long lastTrim = -1;
        foreach (PowerCutChange change in changes)
        {
            lastTrim = change.IsTrim ? Math.Max(lastTrim, change.Acknowledged) : lastTrim;
        }
        floor = -1;
        foreach (PowerCutChange change in changes)
        {
            if (!change.IsTrim && (live ? change.Acknowledged : change.Durable) <= since && change.Issued > lastTrim)
            {
                floor = Math.Max(floor, change.Issued);
            }
        }
        // The newest first, which is the likeliest.
        for (int i = changes.Count - 1; i >= 0; i--)
        {
            if (changes[i].Value == value && changes[i].Acknowledged >= floor)
            {
                return true;
            }
        }
        return false;
    }

    private static string Text(List<PowerCutChange> changes, long since)
        => string.Join(", ", changes.Select(change =>
            $"{(change.IsTrim ? "trim" : change.Value)} [{change.Issued}-"
            + $"{(change.Acknowledged == long.MaxValue ? "" : change.Acknowledged)}"
            + $"{(change.Durable <= since ? $", durable at {change.Durable}" : "")}]"));
}
