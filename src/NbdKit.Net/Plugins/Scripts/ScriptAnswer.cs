namespace NbdKit.Plugins.Scripts;

/// <summary>What a script says to a call that did not fail.</summary>
internal enum ScriptAnswer
{
    /// <summary>Done, or yes (exit code 0).</summary>
    Yes,

    /// <summary>There is no such method (2).</summary>
    Missing,

    /// <summary>No (3).</summary>
    No,
}
