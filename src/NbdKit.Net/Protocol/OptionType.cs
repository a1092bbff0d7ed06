namespace NbdKit.Protocol;

/// <summary>"Option types" that a client sends in the handshake, NBD_OPT_… in the protocol text.</summary>
internal enum OptionType : uint
{
    ExportName = 1,
    Abort = 2,
    List = 3,
    StartTls = 5,
    Info = 6,
    Go = 7,
    StructuredReply = 8,
    ListMetaContext = 9,
    SetMetaContext = 10,
    ExtendedHeaders = 11,
}
