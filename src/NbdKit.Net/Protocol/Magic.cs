namespace NbdKit.Protocol;

/// <summary>The numbers that begin messages ("Reserved Magic values").</summary>
internal static class Magic
{
    /// <summary>"NBDMAGIC", the first 8 bytes of every session.</summary>
    public const ulong Init = 0x4e42444d41474943;

    /// <summary>"IHAVEOPT": newstyle, and the start of every option of the client.</summary>
    public const ulong Option = 0x49484156454F5054;

    /// <summary>What stands in place of "IHAVEOPT" in the oldstyle handshake.</summary>
    public const ulong Oldstyle = 0x00420281861253;

    public const ulong OptionReply = 0x3e889045565a9;

    public const uint Request = 0x25609513;

    public const uint SimpleReply = 0x67446698;

    public const uint StructuredReply = 0x668e33ef;

    public const uint ExtendedRequest = 0x21e41c71;

    public const uint ExtendedReply = 0x6e8a278c;
}
