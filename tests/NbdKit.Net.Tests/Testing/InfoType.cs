namespace NbdKit.Tests.Testing;

/// <summary>Information types of NBD_OPT_INFO and NBD_OPT_GO.</summary>
internal static class InfoType
{
    public const ushort Export = 0;
    public const ushort Name = 1;
    public const ushort Description = 2;
    public const ushort BlockSize = 3;
}
