namespace NbdKit.Tests.Testing;

/// <summary>A request that was sent, so that its reply can be judged.</summary>
internal sealed record WireCall(ushort Command, ulong Cookie, ulong Offset, uint Length, ushort Flags)
{
    public override string ToString()
        => $"command {Command} flags 0x{Flags:x} offset {Offset} length {Length} cookie {Cookie:x}";
}
