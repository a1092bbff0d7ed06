namespace NbdKit.Faults.Mutation;

/// <summary>A request that the client of <see cref="ReplyTarget"/> makes.</summary>
/// <param name="Command">What it is.</param>
/// <param name="Offset">Where it begins.</param>
/// <param name="Length">How long it is.</param>
/// <param name="Flags">What the protocol calls its flags.</param>
internal sealed record ClientCall(ushort Command, int Offset, int Length, ushort Flags = 0)
{
    /// <summary>Whether it is told of holes, or of all contexts: that is another call of the client's for the same request.</summary>
    public bool IsOther { get; init; }

    /// <summary>Whether it is given up before it is answered, by clients that do such things.</summary>
    public bool IsGivenUp { get; init; }
}
