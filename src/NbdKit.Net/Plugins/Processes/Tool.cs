namespace NbdKit.Plugins.Processes;

/// <summary>Finds the programs of the system that plugins run.</summary>
internal static class Tool
{
    /// <summary>Where programs are that the PATH of ordinary users leaves out.</summary>
    private static readonly string[] SystemFolders = ["/usr/sbin", "/sbin", "/usr/local/sbin"];

    /// <summary>The path of the first of some programs that is there.</summary>
    /// <param name="plugin">The plugin that needs it, for the message.</param>
    /// <param name="programs">Their names, the best first.</param>
    /// <exception cref="NbdException">None is there; the message says which were looked for.</exception>
    public static string Find(string plugin, params string[] programs)
        => TryFind(programs) ?? throw new NbdException(
            NbdError.IoError,
            $"{plugin}: {string.Join(" or ", programs)} must be installed, and in a directory of PATH or a system directory");

    private static string? TryFind(string[] programs)
    {
        string[] folders =
        [
            .. (Environment.GetEnvironmentVariable("PATH") ?? "").Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries),
            .. SystemFolders,
        ];
        return programs.SelectMany(program => folders.Select(folder => Path.Join(folder, program))).FirstOrDefault(File.Exists);
    }
}
