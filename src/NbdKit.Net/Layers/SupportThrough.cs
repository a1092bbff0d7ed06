namespace NbdKit.Layers;

/// <summary>What a filter says that does something to each request.</summary>
internal static class SupportThrough
{
    /// <summary>
    /// What would be emulated above the filter, and reach it as the requests that it is made of, comes through as what it is, and is
    /// emulated below.
    /// </summary>
    public static Support ComesThrough(this Support below) => below == Support.Emulate ? Support.Native : below;
}
