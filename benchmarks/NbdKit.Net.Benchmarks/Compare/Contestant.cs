using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks.Compare;

/// <summary>One server of a comparison. Those of the same column are modes of one program; the best of them counts.</summary>
internal sealed record Contestant(string Column, string Name, Func<Scratch, ServerCommand> Command)
{
    /// <summary>The column of this project.</summary>
    public const string OursColumn = "ours";
}
