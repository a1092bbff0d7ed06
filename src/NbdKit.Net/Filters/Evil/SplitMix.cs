namespace NbdKit.Filters.Evil;

/// <summary>The generator splitmix64 of Steele, Lea and Flood: small, fast, and good for any seed.</summary>
internal struct SplitMix(ulong seed)
{
    /// <summary>What the state of a generator grows by with each number.</summary>
    public const ulong Step = 0x9E3779B97F4A7C15;

    private ulong _state = seed;

    public ulong Next() => Mix(_state += Step);

    /// <summary>A number from 0 to just below 1.</summary>
    public double NextDouble() => (Next() >> 11) * (1.0 / (1UL << 53));

    /// <summary>The number that belongs to a state.</summary>
    public static ulong Mix(ulong value)
    {
        value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9;
        value = (value ^ (value >> 27)) * 0x94D049BB133111EB;
        return value ^ (value >> 31);
    }
}
