namespace NbdKit.Benchmarks.Servers;

/// <summary>Where things of this project are.</summary>
internal static class Repository
{
    /// <summary>The folder of the solution.</summary>
    public static string Root { get; } = FindRoot();

    /// <summary>The command, as it was built along with this program.</summary>
    public static string Tool
    {
        get
        {
            // bin/CONFIGURATION/FRAMEWORK is the same for both.
            string framework = Path.TrimEndingDirectorySeparator(AppContext.BaseDirectory);
            string configuration = Path.GetDirectoryName(framework)!;
            string tool = Path.Combine(
                Root, "src", "NbdKit.Net.Tool", "bin", Path.GetFileName(configuration), Path.GetFileName(framework), "nbdkit-net.dll");
            return File.Exists(tool) ? tool : throw new UsageException($"{tool} is not there: build the solution first");
        }
    }

    private static string FindRoot()
    {
        for (string? folder = AppContext.BaseDirectory; folder is not null; folder = Path.GetDirectoryName(folder))
        {
            if (File.Exists(Path.Combine(folder, "NbdKit.Net.sln")))
            {
                return folder;
            }
        }
        throw new UsageException("this program must be run where it was built, inside of the repository");
    }
}
