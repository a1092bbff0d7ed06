namespace NbdKit.Faults.Hostile;

/// <summary>What a network does to the connections that it carries.</summary>
internal enum WireFault
{
    None,
    Bytes,
    Fragments,
    Coalesced,
    Slow,
    ShortDelay,
    LongDelay,
    Pauses,
    ClientHalfClose,
    ServerHalfClose,
    Reset,
    BlackHole,
}
