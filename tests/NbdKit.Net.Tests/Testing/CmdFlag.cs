namespace NbdKit.Tests.Testing;

/// <summary>Request flags.</summary>
internal static class CmdFlag
{
    public const ushort None = 0;
    public const ushort Fua = 1;
    public const ushort NoHole = 2;
    public const ushort Df = 4;
    public const ushort ReqOne = 8;
    public const ushort FastZero = 16;
    public const ushort PayloadLength = 32;
}
