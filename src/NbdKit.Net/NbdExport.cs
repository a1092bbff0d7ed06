namespace NbdKit;

/// <summary>One entry in the list of exports that a client sees (NBD_OPT_LIST).</summary>
/// <param name="Name">The name to open it by; "" is the default export.</param>
/// <param name="Description">What it is, for people, or null.</param>
public sealed record NbdExport(string Name, string? Description = null);
