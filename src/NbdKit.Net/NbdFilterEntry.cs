namespace NbdKit;

/// <summary>A filter in the catalogue: its name, what can be configured, and how to make one.</summary>
/// <param name="Name">The name, as nbdkit spells it.</param>
/// <param name="Description">What it does, in a line.</param>
/// <param name="Parameters">The parameters it knows.</param>
/// <param name="Create">
/// Makes the filter from its parameters. Throws <see cref="ArgumentException"/> for a value that is wrong.
/// </param>
public sealed record NbdFilterEntry(
    string Name,
    string Description,
    IReadOnlyList<NbdParameter> Parameters,
    Func<NbdParameters, INbdFilter> Create);
