namespace NbdKit.Protocol;

/// <summary>Information types of NBD_OPT_INFO and NBD_OPT_GO, NBD_INFO_… in the protocol text.</summary>
internal enum InfoType : ushort
{
    Export = 0,
    Name = 1,
    Description = 2,
    BlockSize = 3,
}
