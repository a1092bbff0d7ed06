namespace NbdKit.Tool.Benching;

/// <summary>The command line of <c>bench</c>, parsed and checked.</summary>
internal sealed record BenchOptions
{
    /// <summary>Null only for help.</summary>
    public DiskArgument? Disk { get; init; }

    public bool Help { get; init; }

    public bool Verbose { get; init; }

    public BenchPattern Pattern { get; init; } = BenchPattern.RandomRead;

    /// <summary>Bytes of a request.</summary>
    public int BlockSize { get; init; } = 4096;

    /// <summary>Requests in flight on each connection.</summary>
    public int Depth { get; init; } = 16;

    public int Connections { get; init; } = 1;

    public TimeSpan Duration { get; init; } = TimeSpan.FromSeconds(5);

    public bool IsWrite => Pattern is BenchPattern.Write or BenchPattern.RandomWrite;

    public bool IsRandom => Pattern is BenchPattern.RandomRead or BenchPattern.RandomWrite;
}
