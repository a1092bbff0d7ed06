namespace NbdKit.Tool.Copying;

/// <summary>The command line of <c>copy</c>, parsed and checked.</summary>
internal sealed record CopyCommandOptions
{
    /// <summary>Null for standard input.</summary>
    public DiskArgument? Source { get; init; }

    /// <summary>Null for standard output and for nowhere.</summary>
    public DiskArgument? Destination { get; init; }

    /// <summary>Whether the destination is <c>null:</c>.</summary>
    public bool ToNowhere { get; init; }

    public bool Help { get; init; }

    public bool Verbose { get; init; }

    /// <summary>The descriptor that progress is written to as numbers, or null.</summary>
    public int? ProgressDescriptor { get; init; }

    /// <summary>Whether to show progress on the standard error.</summary>
    public bool Progress { get; init; }

    public int Connections { get; init; } = 4;

    /// <summary>Whether to keep a journal, and go on where it ends.</summary>
    public bool Resume { get; init; }

    /// <summary>How to copy.</summary>
    public NbdCopyOptions Copy { get; init; } = new();
}
