namespace NbdKit.Tests.Faults;

/// <summary>What was known of blocks at a moment; see <see cref="BlockHistory"/>.</summary>
/// <param name="blocks">The most blocks.</param>
internal sealed class BlockSight(int blocks)
{
    /// <summary>For each block, the beginning of a write: what was over before that may not be there any more.</summary>
    public long[] Floors { get; } = new long[blocks];

    /// <summary>For each block, how many writes to it had begun, and in the lowest bits how many were not over.</summary>
    public long[] States { get; } = new long[blocks];
}
