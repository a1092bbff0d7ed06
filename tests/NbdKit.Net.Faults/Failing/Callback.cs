namespace NbdKit.Faults.Failing;

/// <summary>The callbacks of a plugin.</summary>
internal enum Callback
{
    GetReady,
    Start,
    Preconnect,
    ListExports,
    DefaultExport,
    Open,
    GetInfo,
    Read,
    ReadSparse,
    Write,
    Flush,
    Trim,
    Zero,
    Cache,
    Extents,
    Close,
    Cleanup,
}
