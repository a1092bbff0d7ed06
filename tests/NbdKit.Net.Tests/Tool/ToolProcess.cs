using System.Diagnostics;
using NbdKit.Tool;

namespace NbdKit.Tests.Tool;

/// <summary>The command as a process of its own, with a deadline for everything that is waited for.</summary>
internal sealed class ToolProcess : IAsyncDisposable
{
    private static readonly string Assembly = Path.Combine(AppContext.BaseDirectory, "nbdkit-net.dll");

    private readonly CancellationTokenSource _deadline = new(TimeSpan.FromSeconds(120));
    private readonly Task<string> _error;

    private ToolProcess(Process process)
    {
        Process = process;
        _error = process.StandardError.ReadToEndAsync(_deadline.Token);
    }

    public Process Process { get; }

    public CancellationToken Deadline => _deadline.Token;

    public static ToolProcess Start(params string[] arguments) => StartIn(null, arguments);

    public static ToolProcess StartIn(IReadOnlyDictionary<string, string>? environment, params string[] arguments)
    {
        var start = new ProcessStartInfo("dotnet", ["exec", Assembly, .. arguments])
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        };
        foreach ((string name, string value) in environment ?? new Dictionary<string, string>())
        {
            start.Environment[name] = value;
        }
        return new ToolProcess(Process.Start(start)!);
    }

    /// <summary>Runs the command to its end.</summary>
    public static async Task<(int Status, string Output, string Error)> RunAsync(params string[] arguments)
    {
        await using ToolProcess tool = Start(arguments);
        tool.Process.StandardInput.Close();
        return await tool.EndAsync();
    }

    public async Task<string> LineAsync()
        => await Process.StandardOutput.ReadLineAsync(Deadline)
            ?? throw new AssertionException("The command ended early: " + await _error);

    public void Signal(int signal) => _ = NativeMethods.SendSignal(Process.Id, signal);

    public async Task<(int Status, string Output, string Error)> EndAsync()
    {
        string output = await Process.StandardOutput.ReadToEndAsync(Deadline);
        await Process.WaitForExitAsync(Deadline);
        return (Process.ExitCode, output, await _error);
    }

    public async ValueTask DisposeAsync()
    {
        if (!Process.HasExited)
        {
            Process.Kill(entireProcessTree: true);
        }
        await Process.WaitForExitAsync();
        Process.Dispose();
        _deadline.Dispose();
    }
}
