namespace NbdKit.Filters;

/// <summary>What <see cref="MultiConnFilter"/> promises to clients that use several connections, and how it keeps it.</summary>
public enum MultiConnMode
{
    /// <summary>
    /// <see cref="Plugin"/> if the layers below are multi-conn already; <see cref="Disable"/> if the chain takes one connection
    /// at a time, or cannot flush; else <see cref="Emulate"/>.
    /// </summary>
    Auto,

    /// <summary>A flush on any connection flushes every connection, and FUA becomes such a flush.</summary>
    Emulate,

    /// <summary>Whatever the layers below promise; everything passes through.</summary>
    Plugin,

    /// <summary>Nothing is promised; everything passes through.</summary>
    Disable,

    /// <summary>
    /// Multi-conn is promised whether it holds or not; everything passes through. Only for clients that never write, or for
    /// tests of what goes wrong.
    /// </summary>
    Unsafe,
}
