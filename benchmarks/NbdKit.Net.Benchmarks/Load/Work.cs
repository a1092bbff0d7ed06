namespace NbdKit.Benchmarks.Load;

/// <summary>What clients do to a disk: one kind of request, so many at a time on so many connections.</summary>
internal sealed record Work(string Name, bool Writes, bool Random, int BlockSize, int Depth, int Connections = 1)
{
    /// <summary>The number of blocks that are used, at equal distances over the disk; null for every block.</summary>
    public int? Blocks { get; init; }

    /// <summary>Work that writes the whole disk from its start to its end.</summary>
    public static Work Fill { get; } = new("fill", Writes: true, Random: false, 1 << 20, Depth: 4);

    /// <summary>The work that every other mode is about, under another name if need be.</summary>
    public static Work Find(string name, string prefix = "")
        => All.Single(work => work.Name == name) with { Name = prefix + name };

    /// <summary>The standard set.</summary>
    public static IReadOnlyList<Work> All { get; } =
    [
        new("4k-read-qd1", Writes: false, Random: true, 4 << 10, Depth: 1),
        new("4k-read-qd64", Writes: false, Random: true, 4 << 10, Depth: 64),
        new("4k-write-qd64", Writes: true, Random: true, 4 << 10, Depth: 64),
        new("256k-read-qd16", Writes: false, Random: false, 256 << 10, Depth: 16),
        new("256k-write-qd16", Writes: true, Random: false, 256 << 10, Depth: 16),
        new("1m-read-qd4", Writes: false, Random: false, 1 << 20, Depth: 4),
        new("4k-read-16conn", Writes: false, Random: true, 4 << 10, Depth: 16, Connections: 16),
    ];
}
