namespace NbdKit.Protocol;

/// <summary>"Structured reply types", NBD_REPLY_TYPE_… in the protocol text; errors have bit 15 set.</summary>
internal enum ChunkType : ushort
{
    None = 0,
    OffsetData = 1,
    OffsetHole = 2,
    BlockStatus = 5,

    /// <summary>NBD_REPLY_TYPE_BLOCK_STATUS_EXT: 64-bit lengths and status. With extended headers only.</summary>
    BlockStatusExtended = 6,
    Error = 0x8001,
    ErrorOffset = 0x8002,
}
