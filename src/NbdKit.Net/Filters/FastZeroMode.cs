namespace NbdKit.Filters;

/// <summary>What <see cref="NozeroFilter"/> makes of fast zeroes, those that must fail unless they are fast.</summary>
public enum FastZeroMode
{
    /// <summary>
    /// What suits the <see cref="ZeroMode"/>: refused if zeroes are written, else as the layer below
    /// does.
    /// </summary>
    Default,

    /// <summary>Clients are not offered them.</summary>
    None,

    /// <summary>Offered, and all of them are refused at once.</summary>
    Slow,

    /// <summary>Offered, and carried out like any other zero, which breaks the promise to clients.</summary>
    Ignore,
}
