using System.Diagnostics;

namespace NbdKit.Tests.Testing;

/// <summary>
/// Runs programs that others wrote. One that is not installed ignores the test, or fails it if the environment variable
/// NBDKIT_NET_REQUIRE_PEERS is 1.
/// </summary>
internal static class Peer
{
    /// <summary>After this time a program is killed and its test fails.</summary>
    public static readonly TimeSpan Deadline = TimeSpan.FromSeconds(60);

    /// <summary>Where programs are that the PATH of ordinary users leaves out.</summary>
    private static readonly string[] SystemFolders = ["/usr/sbin", "/sbin"];

    /// <summary>Whether tests may take minutes instead of seconds (NBDKIT_NET_LONG is 1).</summary>
    public static bool IsLongRun => Environment.GetEnvironmentVariable("NBDKIT_NET_LONG") == "1";

    /// <summary>Ignores or fails the test unless all these programs are installed.</summary>
    public static void Require(params string[] programs)
    {
        foreach (string program in programs)
        {
            Find(program);
        }
    }

    /// <summary>Runs a program that must succeed and returns what it wrote to its standard output.</summary>
    public static async Task<string> OutputAsync(string program, params string[] arguments)
        => (await RunAsync(program, arguments)).Expect(0).Output;

    /// <summary>Runs a program to its end.</summary>
    public static Task<PeerResult> RunAsync(string program, params string[] arguments)
        => RunAsync(Deadline, program, arguments);

    /// <summary>Runs a program to its end, which must come before the deadline.</summary>
    public static async Task<PeerResult> RunAsync(TimeSpan deadline, string program, params string[] arguments)
    {
        var start = new ProcessStartInfo(Find(program), arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        // What is compared with must not be translated.
        start.Environment["LC_ALL"] = "C";
        string commandLine = string.Join(' ', arguments.Prepend(program).Select(a => a.Contains('\n') ? "..." : a));
        using Process process = Process.Start(start)!;
        process.StandardInput.Close();
        Task<string> output = process.StandardOutput.ReadToEndAsync();
        Task<string> errors = process.StandardError.ReadToEndAsync();
        try
        {
            await Task.WhenAll(output, errors, process.WaitForExitAsync()).WaitAsync(deadline);
        }
        catch (TimeoutException)
        {
            process.Kill(entireProcessTree: true);
            await process.WaitForExitAsync();
            string printed = string.Concat(await Printed(output), await Printed(errors));
            Assert.Fail($"$ {commandLine}\nwas killed after {deadline.TotalSeconds} s\n{printed}");
        }
        return new PeerResult(commandLine, process.ExitCode, await output, await errors);
    }

    /// <summary>Ends the test because something is not installed.</summary>
    public static void Missing(string what)
    {
        if (Environment.GetEnvironmentVariable("NBDKIT_NET_REQUIRE_PEERS") == "1")
        {
            Assert.Fail($"{what} is required but not installed.");
        }
        Assert.Ignore($"{what} is not installed.");
    }

    private static string Find(string program)
    {
        if (Path.IsPathRooted(program) && File.Exists(program))
        {
            return program;
        }
        IEnumerable<string> folders = (Environment.GetEnvironmentVariable("PATH") ?? "")
            .Split(Path.PathSeparator, StringSplitOptions.RemoveEmptyEntries)
            .Concat(SystemFolders);
        string? path = folders.Select(folder => Path.Combine(folder, program)).FirstOrDefault(File.Exists);
        if (path is null)
        {
            Missing(program);
        }
        return path!;
    }

    // A process that was left behind may hold the other end of the pipe.
    private static async Task<string> Printed(Task<string> text)
        => await Task.WhenAny(text, Task.Delay(TimeSpan.FromSeconds(1))) == text ? await text : "";
}
