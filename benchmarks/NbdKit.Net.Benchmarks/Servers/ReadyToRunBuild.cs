using System.Runtime.InteropServices;

namespace NbdKit.Benchmarks.Servers;

/// <summary>Programs of this project as they are published: compiled ahead of time for this platform.</summary>
internal static class ReadyToRunBuild
{
    /// <summary>Publishes a program.</summary>
    /// <param name="project">Its folder, from the root of the repository.</param>
    /// <param name="program">What it is called.</param>
    /// <param name="folder">Where it goes.</param>
    /// <returns>The program, or null if it could not be made: without the compiler's package, above all.</returns>
    public static string? Publish(string project, string program, string folder)
    {
        string path = Path.Combine(folder, OperatingSystem.IsWindows() ? program + ".exe" : program);
        string? line = Programs.FirstLine(
            ServerCommand.DotNet, "publish", Path.Combine(Repository.Root, project), "-c", "Release",
            "-r", RuntimeInformation.RuntimeIdentifier, "-p:PublishReadyToRun=true", "-o", folder);
        return line is not null && File.Exists(path) ? path : null;
    }
}
