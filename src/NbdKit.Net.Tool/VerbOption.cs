namespace NbdKit.Tool;

/// <summary>One option of a verb.</summary>
/// <param name="Letter">Its short form, or '\0'.</param>
/// <param name="Names">Its long forms; the first is its name.</param>
/// <param name="Argument">What its argument is called, or null if it takes none.</param>
/// <param name="Help">What it does, in a line.</param>
internal sealed record VerbOption(char Letter, string[] Names, string? Argument, string Help)
{
    /// <summary>Whether the argument may be left out, and has to be given as <c>--name=value</c> if it is not.</summary>
    public bool IsArgumentOptional { get; init; }

    /// <summary>The short and the first long form, as in "-p, --port=PORT".</summary>
    public string Synopsis
        => (Letter == '\0' ? "    " : $"-{Letter}, ") + "--" + Names[0]
            + (Argument is null ? "" : IsArgumentOptional ? $"[={Argument}]" : "=" + Argument);
}
