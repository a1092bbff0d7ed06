namespace NbdKit.Faults.Mutation;

/// <summary>What a judge of a server has to know about it.</summary>
/// <param name="Flags">The handshake flags that it offers.</param>
/// <param name="RequirePayloadFlag">Whether a write with an extended header has no payload without the flag that says so.</param>
/// <param name="MaxPayload">The longest payload of a request that it takes.</param>
/// <param name="MaxOption">The longest data of an option that it parses; it skips eight times as much.</param>
internal sealed record ServerRules(uint Flags, bool RequirePayloadFlag, uint MaxPayload, uint MaxOption)
{
    /// <summary>Whether the layers said that so many bytes at an offset are zero; null if they never do.</summary>
    public Func<ulong, ulong, bool>? IsZero { get; init; }
}
