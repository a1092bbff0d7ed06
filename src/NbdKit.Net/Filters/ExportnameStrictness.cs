namespace NbdKit.Filters;

/// <summary>Which exports may be opened through <see cref="ExportnameFilter"/>.</summary>
public enum ExportnameStrictness
{
    /// <summary>Any that the layer below opens.</summary>
    None,

    /// <summary>Those of <see cref="ExportnameFilter.Exports"/>.</summary>
    Explicit,

    /// <summary>Those of <see cref="ExportnameFilter.Exports"/>, and those that the layer below lists.</summary>
    Listed,
}
