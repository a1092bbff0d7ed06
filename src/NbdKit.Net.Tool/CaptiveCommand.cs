using System.ComponentModel;
using System.Diagnostics;
using System.Text;

namespace NbdKit.Tool;

/// <summary>The command of <c>--run</c>: a shell script that sees where the server listens.</summary>
internal sealed class CaptiveCommand : IDisposable
{
    private readonly Process _process;

    private CaptiveCommand(Process process) => _process = process;

    /// <summary>Starts the command in /bin/sh, on this process' standard streams.</summary>
    /// <param name="command">The command.</param>
    /// <param name="uri">The URI of the server.</param>
    /// <param name="unixSocket">The path of its Unix socket, or null.</param>
    /// <param name="port">Its port of TCP or of a vsock, or null.</param>
    /// <param name="exportName">The export name in the URI.</param>
    /// <param name="tls">Whether it encrypts.</param>
    /// <param name="certificates">The directory of the certificates, if the command was told, or null.</param>
    /// <exception cref="CommandException">There is no such shell.</exception>
    public static CaptiveCommand Start(
        string command, string uri, string? unixSocket, long? port, string exportName, TlsMode tls, string? certificates)
    {
        var start = new ProcessStartInfo("/bin/sh") { UseShellExecute = false };
        start.ArgumentList.Add("-c");
        start.ArgumentList.Add(Script(command, uri, unixSocket, port, exportName, tls, certificates));
        try
        {
            return new CaptiveCommand(Process.Start(start)!);
        }
        catch (Win32Exception e)
        {
            throw new CommandException($"cannot run {start.FileName}: {e.Message}", e);
        }
    }

    /// <summary>
    /// The command behind assignments to the shell variables, which are not exported, as in nbdkit, and the function
    /// <c>nbdkit_net</c>, which is this command itself, wherever it is.
    /// </summary>
    public static string Script(
        string command, string uri, string? unixSocket, long? port, string exportName, TlsMode tls, string? certificates)
    {
        var script = new StringBuilder();
        Assign(script, "uri", uri);
        // The older name for the same thing.
        Assign(script, "nbd", uri);
        Assign(script, "port", port is { } number ? $"{number}" : "");
        Assign(script, "unixsocket", unixSocket ?? "");
        Assign(script, "exportname", exportName);
        Assign(script, "tls", $"{(int)tls}");
        Assign(script, "tls_certificates", certificates ?? "");
        Assign(script, "tls_psk", "");
        script.Append("nbdkit_net() { ").Append(string.Join(' ', Self().Select(Quoted))).Append(" \"$@\"; }\n");
        return script.Append(command).ToString();
    }

    /// <summary>Waits for the end of the command.</summary>
    /// <returns>Its exit status; 128 and the number of the signal that ended it.</returns>
    public async Task<int> WaitAsync()
    {
        await _process.WaitForExitAsync(CancellationToken.None).ConfigureAwait(false);
        return _process.ExitCode;
    }

    /// <summary>Asks the command to end.</summary>
    public void Terminate()
    {
        if (!_process.HasExited)
        {
            _ = NativeMethods.SendSignal(_process.Id, NativeMethods.SignalTerminate);
        }
    }

    public void Dispose() => _process.Dispose();

    private static void Assign(StringBuilder script, string variable, string value)
        => script.Append(variable).Append('=').Append(Quoted(value)).Append('\n');

    private static string Quoted(string value) => $"'{value.Replace("'", "'\\''", StringComparison.Ordinal)}'";

    /// <summary>How this process was started: a program of its own, or an assembly that dotnet runs.</summary>
    private static string[] Self()
    {
        string program = Environment.ProcessPath ?? "dotnet";
        return Path.GetFileNameWithoutExtension(program) == "dotnet"
            ? [program, Path.Combine(AppContext.BaseDirectory, "nbdkit-net.dll")]
            : [program];
    }
}
