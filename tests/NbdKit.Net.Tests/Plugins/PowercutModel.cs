namespace NbdKit.Tests.Plugins;

/// <summary>
/// What a power cut may leave, by the rules alone: every byte of every pending change is kept apart, and all subsets and
/// orders are tried.
/// </summary>
internal sealed class PowercutModel(byte[] content, int sectorSize, bool multiConn)
{
    private readonly byte[] _stable = [.. content];
    private readonly List<Change> _pending = [];

    public byte[] Live { get; } = [.. content];

    /// <summary>The number of changes that a sector may have lost, of the sector that has most.</summary>
    public int MostPending
        => Enumerable.Range(0, Sectors).Max(sector => _pending.Count(change => change.Has(SectorRange(sector))));

    public int Sectors => (_stable.Length + sectorSize - 1) / sectorSize;

    public void Write(int context, int offset, byte[] bytes, bool fua)
    {
        var change = new Change(context, new byte?[_stable.Length]);
        for (int i = 0; i < bytes.Length; i++)
        {
            change.Bytes[offset + i] = bytes[i];
        }
        bytes.CopyTo(Live, offset);
        _pending.Add(change);
        if (fua)
        {
            MakeDurable([change]);
        }
    }

    public void Flush(int context) => MakeDurable([.. _pending.Where(change => multiConn || change.Context == context)]);

    /// <summary>All that a sector may hold after a cut.</summary>
    public HashSet<string> Allowed(int sector)
    {
        (int start, int end) = SectorRange(sector);
        var found = new HashSet<string>();
        Collect(_stable[start..end], [.. _pending.Where(change => change.Has((start, end)))], start, found);
        return found;
    }

    public string Text(byte[] image, int sector)
    {
        (int start, int end) = SectorRange(sector);
        return Convert.ToHexString(image[start..end]);
    }

    private static void Collect(byte[] bytes, Change[] left, int start, HashSet<string> found)
    {
        found.Add(Convert.ToHexString(bytes));
        foreach (Change next in left)
        {
            byte[] after = [.. bytes];
            for (int i = 0; i < after.Length; i++)
            {
                after[i] = next.Bytes[start + i] ?? after[i];
            }
            Collect(after, [.. left.Where(change => change != next)], start, found);
        }
    }

    private void MakeDurable(List<Change> changes)
    {
        foreach (Change change in changes)
        {
            for (int i = 0; i < _stable.Length; i++)
            {
                if (change.Bytes[i] is not { } value)
                {
                    continue;
                }
                _stable[i] = value;
                foreach (Change older in _pending.TakeWhile(other => other != change))
                {
                    if (!changes.Contains(older))
                    {
                        older.Bytes[i] = null;
                    }
                }
            }
        }
        _pending.RemoveAll(changes.Contains);
    }

    private (int Start, int End) SectorRange(int sector)
        => (sector * sectorSize, Math.Min(_stable.Length, (sector + 1) * sectorSize));

    private sealed record Change(int Context, byte?[] Bytes)
    {
        public bool Has((int Start, int End) range) => Bytes[range.Start..range.End].Any(value => value is not null);
    }
}
