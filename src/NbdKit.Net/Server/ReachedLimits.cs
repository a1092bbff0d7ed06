namespace NbdKit.Server;

/// <summary>Limits that a client may reach often and stay connected: each is a word in the log once for a connection.</summary>
[Flags]
internal enum ReachedLimits
{
    None = 0,
    OptionSize = 1 << 0,
    MetaQueries = 1 << 1,
    ListSize = 1 << 2,
    ReadSize = 1 << 3,
    RequestsInFlight = 1 << 4,
    BytesInFlight = 1 << 5,
    ServerBytesInFlight = 1 << 6,
}
