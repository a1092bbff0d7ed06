namespace NbdKit.Plugins.Powercut;

/// <summary>
/// What a power cut does to pending records: which of them reach a sector, and in which order. A function of the seed, the
/// record and the sector alone, so that nothing has to be drawn ahead, and every read of an image says the same.
/// </summary>
/// <remarks>
/// Drawn sector by sector alone, cuts that lose everything, nothing, or whole writes would never come up in a long history; so
/// each seed first draws a kind of cut. Half of them are of the kind that can leave anything.
/// </remarks>
internal readonly struct PowercutFate
{
    private readonly ulong _seed;
    private readonly Kind _kind;
    private readonly long _chance;
    private readonly long _edge;

    /// <param name="seed">The seed.</param>
    /// <param name="records">The pending records in order.</param>
    public PowercutFate(int seed, JournalRecord[] records)
    {
        _seed = Mix((uint)seed);
        ulong draw = Mix(_seed ^ 1);
        _kind = (draw & 7) switch
        {
            0 => (draw & 8) == 0 ? Kind.Nothing : Kind.Everything,
            1 or 2 => Kind.Prefix,
            3 => Kind.Whole,
            _ => Kind.Torn,
        };
        // Few, half or most of 8.
        _chance = ((draw >> 8) % 3) switch { 0 => 1, 1 => 4, _ => 7 };
        _edge = records.Length == 0 ? 0 : records[(int)((draw >> 16) % (ulong)records.Length)].Id;
    }

    private enum Kind
    {
        /// <summary>All that was pending is lost.</summary>
        Nothing,

        /// <summary>All that was pending is there.</summary>
        Everything,

        /// <summary>The older ones are there, the newer ones are not, and one between is torn.</summary>
        Prefix,

        /// <summary>Each is there as a whole, or not at all.</summary>
        Whole,

        /// <summary>Sector by sector anything may have happened.</summary>
        Torn,
    }

    /// <summary>Whether records reach a sector in another order than the one in which they were made.</summary>
    public bool Reorders => _kind == Kind.Torn;

    /// <summary>Whether a record reaches a sector.</summary>
    /// <param name="record">The record.</param>
    /// <param name="sector">The offset of the sector.</param>
    /// <param name="sectorSize">Its size.</param>
    /// <param name="rank">The order among those that do; the lowest comes first.</param>
    public bool Keeps(JournalRecord record, long sector, int sectorSize, out ulong rank)
    {
        rank = (ulong)record.Id;
        switch (_kind)
        {
            case Kind.Nothing:
                return false;
            case Kind.Everything:
                return true;
            case Kind.Prefix:
                return record.Id < _edge
                    || (record.Id == _edge && (long)(Draw(record, sector / record.Piece(sectorSize)) & 7) < _chance);
            case Kind.Whole:
                return (long)(Draw(record, -1) & 7) < _chance;
            default:
                ulong draw = Draw(record, sector / record.Piece(sectorSize));
                rank = draw >> 8;
                return (long)(draw & 7) < _chance;
        }
    }

    private ulong Draw(JournalRecord record, long piece) => Mix(Mix(_seed + (ulong)record.Id) + (ulong)piece);

    // The finalizer of SplitMix64.
    private static ulong Mix(ulong value)
    {
        value += 0x9E3779B97F4A7C15;
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
        return value ^ (value >> 31);
    }
}
