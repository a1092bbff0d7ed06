using System.Runtime.InteropServices;

namespace NbdKit.Plugins.Processes;

/// <summary>A program to run, with what it is given. Arguments reach it as they are: no shell takes them apart.</summary>
/// <param name="Program">A path, or a name to look for in the directories of PATH.</param>
/// <param name="Arguments">The arguments after the program's own name.</param>
internal sealed record ChildCommand(string Program, IReadOnlyList<string> Arguments)
{
    /// <summary>The child's whole environment; null for this process's own.</summary>
    public IReadOnlyDictionary<string, string>? Environment { get; init; }

    /// <summary>What it reads as its standard input, if that is not <see cref="ChildProcess.Input"/>. It stays the caller's.</summary>
    public SafeHandle? StandardInput { get; init; }

    /// <summary>Where its standard output goes, if not to <see cref="ChildProcess.Output"/>. It stays the caller's.</summary>
    public SafeHandle? StandardOutput { get; init; }

    /// <summary>A socket that it gets as descriptor 3. It stays the caller's.</summary>
    public SafeHandle? Socket { get; init; }

    /// <summary>The name of the program, for messages: those that clients may see do not tell where it is.</summary>
    public string Name => Path.GetFileName(Program);

    /// <summary>This process's environment with some variables set.</summary>
    public static Dictionary<string, string> EnvironmentWith(params IEnumerable<KeyValuePair<string, string>> variables)
    {
        var all = new Dictionary<string, string>(StringComparer.Ordinal);
        foreach (System.Collections.DictionaryEntry entry in System.Environment.GetEnvironmentVariables())
        {
            all[(string)entry.Key] = (string?)entry.Value ?? "";
        }
        foreach ((string name, string value) in variables)
        {
            all[name] = value;
        }
        return all;
    }
}
