namespace NbdKit.Protocol;

/// <summary>"Command flags", NBD_CMD_FLAG_… in the protocol text.</summary>
[Flags]
internal enum CommandFlags : ushort
{
    None = 0,
    Fua = 1 << 0,
    NoHole = 1 << 1,

    /// <summary>NBD_CMD_FLAG_DF: do not fragment the reply to a read.</summary>
    DontFragment = 1 << 2,
    RequestOne = 1 << 3,
    FastZero = 1 << 4,

    /// <summary>NBD_CMD_FLAG_PAYLOAD_LEN: the length is that of a payload. With extended headers only.</summary>
    PayloadLength = 1 << 5,
}
