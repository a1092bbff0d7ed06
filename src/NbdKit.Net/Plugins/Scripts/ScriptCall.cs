using NbdKit.Plugins.Processes;

namespace NbdKit.Plugins.Scripts;

/// <summary>One call of a script.</summary>
/// <param name="Method">The method, its first argument.</param>
/// <param name="Arguments">The other arguments.</param>
internal readonly record struct ScriptCall(string Method, params string[] Arguments)
{
    /// <summary>What it can read on its standard input.</summary>
    public ReadOnlyMemory<byte> Input { get; init; }

    /// <summary>Takes what it prints; null if that is of no interest.</summary>
    public ChildOutput? Output { get; init; }

    /// <summary>The client that it may disconnect, or whose server it may stop; null if there is none.</summary>
    public NbdConnection? Connection { get; init; }
}
