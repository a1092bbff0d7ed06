using System.Diagnostics;

namespace NbdKit.Tests.Testing;

/// <summary>A directory for one test, removed with all that is in it.</summary>
internal sealed class ScratchDirectory : IDisposable
{
    public ScratchDirectory(string? parent = null)
        => Path = Directory.CreateDirectory(
            System.IO.Path.Combine(parent ?? System.IO.Path.GetTempPath(), "nbdkit-net-" + Guid.NewGuid().ToString("n"))).FullName;

    public string Path { get; }

    /// <summary>A place on each of the file systems that there are likely to be (Linux).</summary>
    public static IEnumerable<string> Parents
        => !OperatingSystem.IsLinux()
            ? [System.IO.Path.GetTempPath()]
            : new[] { System.IO.Path.GetTempPath(), TestContext.CurrentContext.WorkDirectory, "/dev/shm" }
                .Where(Directory.Exists)
                .DistinctBy(path => Run("stat", "-c", "%d", path));

    /// <summary>The path of an entry, whether it exists or not.</summary>
    public string this[string name] => System.IO.Path.Combine(Path, name);

    /// <summary>Creates a file with some content.</summary>
    public string Write(string name, byte[] content)
    {
        File.WriteAllBytes(this[name], content);
        return this[name];
    }

    /// <summary>Creates a program from its text.</summary>
    public string WriteProgram(string name, string text)
    {
        File.WriteAllText(this[name], text);
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(this[name], UnixFileMode.UserRead | UnixFileMode.UserExecute);
        }
        return this[name];
    }

    /// <summary>Creates a file that is one hole.</summary>
    public string WriteHole(string name, long size)
    {
        using FileStream file = File.Create(this[name]);
        file.SetLength(size);
        return this[name];
    }

    /// <summary>The space that a file takes on its disk, in bytes (Linux).</summary>
    public static long AllocatedBytes(string path) => 512 * long.Parse(Run("stat", "-c", "%b", path));

    /// <summary>Runs a program and returns what it prints.</summary>
    public static string Run(string program, params string[] arguments)
    {
        using Process process = Process.Start(
            new ProcessStartInfo(program, arguments) { RedirectStandardOutput = true })!;
        string output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return process.ExitCode == 0 ? output : throw new InvalidOperationException($"{program} failed: {process.ExitCode}");
    }

    public void Dispose() => Directory.Delete(Path, recursive: true);
}
