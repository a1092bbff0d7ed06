namespace NbdKit.Tests.Testing;

/// <summary>Error values of replies.</summary>
internal static class Errno
{
    public const uint Ok = 0;
    public const uint Perm = 1;
    public const uint Io = 5;
    public const uint NoMem = 12;
    public const uint Inval = 22;
    public const uint NoSpc = 28;
    public const uint Overflow = 75;
    public const uint NotSup = 95;
    public const uint Shutdown = 108;

    /// <summary>The only ones that may travel.</summary>
    public static readonly uint[] Legal = [Perm, Io, NoMem, Inval, NoSpc, Overflow, NotSup, Shutdown];
}
