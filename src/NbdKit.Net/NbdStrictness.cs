namespace NbdKit;

/// <summary>
/// What a client checks before it sends a request (libnbd's strict mode). A check that is turned off lets a request through that
/// breaks the protocol: for tests of servers.
/// </summary>
[Flags]
public enum NbdStrictness
{
    /// <summary>Everything is sent as it was asked for.</summary>
    None = 0,

    /// <summary>Commands that the server did not offer are refused.</summary>
    Commands = 1 << 0,

    /// <summary>Flags that the server did not offer, or that do not belong to the command, are refused.</summary>
    Flags = 1 << 1,

    /// <summary>Ranges outside the export are refused.</summary>
    Bounds = 1 << 2,

    /// <summary>Requests of no bytes complete at once without being sent.</summary>
    ZeroLength = 1 << 3,

    /// <summary>Ranges that are not multiples of the minimum block size are refused.</summary>
    Alignment = 1 << 4,

    /// <summary>Reads and writes larger than the server takes are split.</summary>
    PayloadSize = 1 << 5,

    /// <summary>Everything is checked: the default.</summary>
    All = Commands | Flags | Bounds | ZeroLength | Alignment | PayloadSize,
}
