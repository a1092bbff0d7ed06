namespace NbdKit.Faults;

/// <summary>How large a row runs, and where its randomness comes from.</summary>
internal sealed record FaultRun(bool IsRelease, int Seed, long? Count)
{
    /// <summary>The size of a row: the one that was asked for, or its size before each merge or before a release.</summary>
    public long Size(long gate, long release) => Count ?? (IsRelease ? release : gate);

    /// <summary>One of two values.</summary>
    public T Choose<T>(T gate, T release) => IsRelease ? release : gate;

    /// <summary>A source of randomness for part of the row.</summary>
    public Random Random(int part = 0) => new(unchecked((Seed * 1_000_003) + part));
}
