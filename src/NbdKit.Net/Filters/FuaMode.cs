namespace NbdKit.Filters;

/// <summary>What <see cref="FuaFilter"/> makes of forced unit access.</summary>
public enum FuaMode
{
    /// <summary>Clients are not offered it.</summary>
    None,

    /// <summary>
    /// Offered; a flush after each such request does the work. Needs a layer below that takes
    /// flushes.
    /// </summary>
    Emulate,

    /// <summary>Offered and passed on. Needs a layer below that supports it in either way.</summary>
    Native,

    /// <summary>
    /// Every write, trim and zero becomes one, and a flush does nothing. Needs a layer below that supports it in either
    /// way.
    /// </summary>
    Force,

    /// <summary>Whatever the layer below offers.</summary>
    Pass,

    /// <summary>Offered, like flush, and both do nothing: fast, and a crash loses data.</summary>
    Discard,
}
