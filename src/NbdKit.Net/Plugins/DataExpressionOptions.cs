namespace NbdKit.Plugins;

/// <summary>What a text may do when <see cref="DataExpression.Parse"/> reads it.</summary>
public sealed record DataExpressionOptions
{
    /// <summary>
    /// Whether <c>&lt;(SCRIPT)</c> may run a script with <c>/bin/sh</c>. Only set it for texts that you would also run as a script.
    /// </summary>
    /// <value>False by default: such a text is refused.</value>
    public bool AllowsScripts { get; init; }

    /// <summary>What <c>$NAME</c> stands for, by name: a text in the same language.</summary>
    /// <value>Empty by default.</value>
    public IReadOnlyDictionary<string, string> Variables { get; init; } = new Dictionary<string, string>();

    /// <summary>Whether a name that is not in <see cref="Variables"/> is looked for in the environment.</summary>
    /// <value>False by default.</value>
    public bool UsesEnvironment { get; init; }
}
