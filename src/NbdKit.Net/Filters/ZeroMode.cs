namespace NbdKit.Filters;

/// <summary>What <see cref="NozeroFilter"/> makes of requests to zero a range.</summary>
public enum ZeroMode
{
    /// <summary>Clients are not offered them; they have to write zeroes.</summary>
    None,

    /// <summary>Offered; zeroes are written to the layer below, whatever it could do better.</summary>
    Emulate,

    /// <summary>Offered and passed on, but the layer below may not give up the space.</summary>
    Notrim,

    /// <summary>Passed on unchanged; to be combined with a <see cref="FastZeroMode"/>.</summary>
    Plugin,
}
