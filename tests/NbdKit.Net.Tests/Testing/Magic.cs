namespace NbdKit.Tests.Testing;

/// <summary>The magic numbers of the protocol, and those that it reserved by history.</summary>
internal static class Magic
{
    public const ulong Nbd = 0x4e42444d41474943;
    public const ulong IHaveOpt = 0x49484156454f5054;
    public const ulong OptionReply = 0x0003e889045565a9;
    public const uint Request = 0x25609513;
    public const uint SimpleReply = 0x67446698;
    public const uint Chunk = 0x668e33ef;
    public const uint ExtendedRequest = 0x21e41c71;
    public const uint ExtendedReply = 0x6e8a278c;

    public static readonly uint[] Historic = [0x12560953, 0x96744668, 0x25609514];
}
