namespace NbdKit;

/// <summary>One configuration parameter that a plugin or filter of the catalogue knows.</summary>
/// <param name="Name">The key, as nbdkit spells it.</param>
/// <param name="Help">What it does, with its default, in a line.</param>
public sealed record NbdParameter(string Name, string Help)
{
    /// <summary>Whether it must be given. False by default.</summary>
    public bool IsRequired { get; init; }

    /// <summary>Whether it may be given more than once. False by default.</summary>
    public bool IsRepeatable { get; init; }
}
