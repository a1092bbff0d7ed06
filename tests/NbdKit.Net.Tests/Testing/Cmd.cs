namespace NbdKit.Tests.Testing;

/// <summary>Request types.</summary>
internal static class Cmd
{
    public const ushort Read = 0;
    public const ushort Write = 1;
    public const ushort Disc = 2;
    public const ushort Flush = 3;
    public const ushort Trim = 4;
    public const ushort Cache = 5;
    public const ushort WriteZeroes = 6;
    public const ushort BlockStatus = 7;
    public const ushort Resize = 8;

    /// <summary>The commands that name a range, DISC and FLUSH left out.</summary>
    public static readonly ushort[] Ranged = [Read, Write, Trim, Cache, WriteZeroes, BlockStatus];
}
