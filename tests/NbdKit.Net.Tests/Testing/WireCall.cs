namespace NbdKit.Tests.Testing;

/// <summary>A request that was sent, so that its reply can be judged.</summary>
internal sealed record WireCall(ushort Command, ulong Cookie, ulong Offset, ulong Length, ushort Flags)
{
    /// <summary>The ids of the contexts that a block status names in its payload; null if it has none.</summary>
    public IReadOnlyList<uint>? Contexts { get; init; }

    public override string ToString()
        => $"command {Command} flags 0x{Flags:x} offset {Offset} length {Length} cookie {Cookie:x}";
}
