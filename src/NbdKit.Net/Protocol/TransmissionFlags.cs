namespace NbdKit.Protocol;

/// <summary>"Transmission flags": what an export can do, NBD_FLAG_… in the protocol text.</summary>
[Flags]
internal enum TransmissionFlags : ushort
{
    None = 0,
    HasFlags = 1 << 0,
    ReadOnly = 1 << 1,
    SendFlush = 1 << 2,
    SendFua = 1 << 3,
    Rotational = 1 << 4,
    SendTrim = 1 << 5,
    SendWriteZeroes = 1 << 6,
    SendDf = 1 << 7,
    CanMultiConn = 1 << 8,
    SendCache = 1 << 10,
    SendFastZero = 1 << 11,

    /// <summary>NBD_FLAG_BLOCK_STATUS_PAYLOAD: a block status may name its contexts. With extended headers only.</summary>
    BlockStatusPayload = 1 << 12,
}
