namespace NbdKit;

/// <summary>A plugin in the catalogue: its name, what can be configured, and how to make one.</summary>
/// <param name="Name">The name, as nbdkit spells it.</param>
/// <param name="Description">What it serves, in a line.</param>
/// <param name="Parameters">The parameters it knows.</param>
/// <param name="Create">
/// Makes the plugin from its parameters. Throws <see cref="ArgumentException"/> for a value that is wrong.
/// </param>
public sealed record NbdPluginEntry(
    string Name,
    string Description,
    IReadOnlyList<NbdParameter> Parameters,
    Func<NbdParameters, INbdPlugin> Create)
{
    /// <summary>The parameter that a bare argument on a command line stands for, or null.</summary>
    public string? MagicParameter { get; init; }

    /// <summary>
    /// Whether it also takes parameters that are not among <see cref="Parameters"/>, each once; see <see cref="NbdParameters.Names"/>.
    /// False by default.
    /// </summary>
    public bool TakesOtherParameters { get; init; }
}
