namespace NbdKit.Protocol;

/// <summary>"Handshake flags" of the server, and the client flags that answer them.</summary>
[Flags]
internal enum HandshakeFlags : ushort
{
    None = 0,

    /// <summary>NBD_FLAG_FIXED_NEWSTYLE.</summary>
    FixedNewstyle = 1,

    /// <summary>NBD_FLAG_NO_ZEROES.</summary>
    NoZeroes = 2,
}
