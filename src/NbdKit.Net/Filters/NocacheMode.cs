namespace NbdKit.Filters;

/// <summary>What <see cref="NocacheFilter"/> makes of requests to prefetch.</summary>
public enum NocacheMode
{
    /// <summary>They are not offered.</summary>
    None,

    /// <summary>They are offered, and the library reads the range and drops what it read.</summary>
    Emulate,

    /// <summary>They are offered, and do nothing.</summary>
    Nop,
}
