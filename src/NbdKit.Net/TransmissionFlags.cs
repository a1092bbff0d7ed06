namespace NbdKit;

/// <summary>What a peer is told about an export ("Transmission flags", NBD_FLAG_… in the protocol text).</summary>
[Flags]
public enum TransmissionFlags : ushort
{
    /// <summary>Nothing, not even that this is all.</summary>
    None = 0,

    /// <summary>The other flags mean something (NBD_FLAG_HAS_FLAGS).</summary>
    HasFlags = 1 << 0,

    /// <summary>The export takes no write, trim or zero (NBD_FLAG_READ_ONLY). The only flag that offers less.</summary>
    ReadOnly = 1 << 1,

    /// <summary>The export takes flushes (NBD_FLAG_SEND_FLUSH).</summary>
    SendFlush = 1 << 2,

    /// <summary>The export takes forced unit access (NBD_FLAG_SEND_FUA).</summary>
    SendFua = 1 << 3,

    /// <summary>Seeking is slow, as on a spinning disk (NBD_FLAG_ROTATIONAL).</summary>
    Rotational = 1 << 4,

    /// <summary>The export takes trims (NBD_FLAG_SEND_TRIM).</summary>
    SendTrim = 1 << 5,

    /// <summary>The export takes zeroes (NBD_FLAG_SEND_WRITE_ZEROES).</summary>
    SendWriteZeroes = 1 << 6,

    /// <summary>A read may ask not to be answered in fragments (NBD_FLAG_SEND_DF). With structured replies only.</summary>
    SendDf = 1 << 7,

    /// <summary>Several connections may be used as one (NBD_FLAG_CAN_MULTI_CONN).</summary>
    CanMultiConn = 1 << 8,

    /// <summary>The export takes prefetches (NBD_FLAG_SEND_CACHE).</summary>
    SendCache = 1 << 10,

    /// <summary>A zero may ask to fail unless it is fast (NBD_FLAG_SEND_FAST_ZERO).</summary>
    SendFastZero = 1 << 11,

    /// <summary>A block status may name its contexts (NBD_FLAG_BLOCK_STATUS_PAYLOAD). With extended headers only.</summary>
    BlockStatusPayload = 1 << 12,
}
