using System.Diagnostics;

namespace NbdKit.Native;

/// <summary>A command that tells by its exit status whether something has happened.</summary>
internal static class ExitScript
{
    private const int Happened = 88;

    /// <exception cref="IOException">The command cannot be run, or ended in a way that means neither.</exception>
    public static async ValueTask<bool> RunAsync(string command, CancellationToken cancellationToken)
    {
        using Process process = Process.Start(new ProcessStartInfo("/bin/sh", ["-c", command]))
            ?? throw new IOException($"The script '{command}' was not started.");
        try
        {
            await process.WaitForExitAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (OperationCanceledException)
        {
            process.Kill(entireProcessTree: true);
            throw;
        }
        return process.ExitCode switch
        {
            0 => false,
            Happened => true,
            var status => throw new IOException($"The script '{command}' ended with status {status}."),
        };
    }
}
