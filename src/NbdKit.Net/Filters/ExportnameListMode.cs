namespace NbdKit.Filters;

/// <summary>Which exports <see cref="ExportnameFilter"/> lists.</summary>
public enum ExportnameListMode
{
    /// <summary>Those that the layer below lists.</summary>
    Keep,

    /// <summary>None: clients that ask get an error.</summary>
    Error,

    /// <summary>None.</summary>
    Empty,

    /// <summary>The default export alone.</summary>
    DefaultOnly,

    /// <summary>Those of <see cref="ExportnameFilter.Exports"/>.</summary>
    Explicit,
}
