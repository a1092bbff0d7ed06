using System.Diagnostics;
using System.Net.Sockets;
using NbdKit.Plugins;

namespace NbdKit.Faults.Hostile;

/// <summary>A server in a process of its own: what runs in that process, and how a row sees it.</summary>
internal sealed class ServingChild : IAsyncDisposable
{
    private readonly Process _process;
    private readonly string _socket;
    private int _warnings;

    private ServingChild(Process process, string socket)
    {
        _process = process;
        _socket = socket;
    }

    public UnixDomainSocketEndPoint EndPoint => new(_socket);

    /// <summary>The lines about clients that could not be accepted.</summary>
    public int Warnings => Volatile.Read(ref _warnings);

    /// <summary>The time that it had a processor.</summary>
    public TimeSpan Cpu
    {
        get
        {
            _process.Refresh();
            return _process.TotalProcessorTime;
        }
    }

    /// <summary>The program of a child: serves a file, or a disk in memory, until its input ends.</summary>
    public static async Task<int> RunAsync(string[] args)
    {
        var log = new FaultLog();
        INbdPlugin plugin = args.Length > 1 ? new FilePlugin { Path = args[1] } : FaultServer.Disk((_, _, _) => default);
        var options = new NbdServerOptions
        {
            EndPoints = [new UnixDomainSocketEndPoint(args[0])],
            MaxConnections = 5_000,
            LoggerFactory = log,
            Backlog = 2_000,
        };
        await using (var server = new NbdServer(NbdBackend.Compose(plugin), options))
        {
            await server.StartAsync();
            await Console.Out.WriteLineAsync("serving");
            using var stop = new CancellationTokenSource();
            Task reporting = ReportAsync(log, stop.Token);
            _ = await Console.In.ReadToEndAsync(CancellationToken.None);
            await stop.CancelAsync();
            await reporting;
        }
        log.AssertClean();
        return 0;
    }

    /// <summary>Starts a child and waits until it serves.</summary>
    /// <param name="socket">Where it listens.</param>
    /// <param name="file">The file to serve, or null for the disk of <see cref="FaultServer"/>.</param>
    /// <param name="descriptors">The descriptors that it may have.</param>
    public static async Task<ServingChild> StartAsync(string socket, string? file = null, int? descriptors = null)
    {
        string[] command = [System.Environment.ProcessPath!, "--serve", socket, .. file is null ? Array.Empty<string>() : [file]];
        ProcessStartInfo start = descriptors is null
            ? new ProcessStartInfo(command[0], command[1..])
            : new ProcessStartInfo("/bin/sh", ["-c", $"ulimit -n {descriptors}; exec \"$@\"", "sh", .. command]);
        start.RedirectStandardInput = true;
        start.RedirectStandardOutput = true;
        var child = new ServingChild(Process.Start(start)!, socket);
        string? line = await child._process.StandardOutput.ReadLineAsync().WaitAsync(30 * ProcessUse.Patience);
        if (line != "serving")
        {
            throw new InvalidOperationException($"The server in a process of its own said {line ?? "nothing"}.");
        }
        _ = child.ListenAsync();
        return child;
    }

    /// <summary>Ends it at once, as when its memory has run out.</summary>
    public async Task KillAsync()
    {
        _process.Kill();
        await _process.WaitForExitAsync();
    }

    /// <summary>Ends it in order.</summary>
    public async Task EndAsync()
    {
        _process.StandardInput.Close();
        await _process.WaitForExitAsync().WaitAsync(30 * ProcessUse.Patience);
        if (_process.ExitCode != 0)
        {
            throw new InvalidOperationException($"The server in a process of its own ended with {_process.ExitCode}.");
        }
    }

    public async ValueTask DisposeAsync()
    {
        if (!_process.HasExited)
        {
            await KillAsync();
        }
        _process.Dispose();
    }

    private static async Task ReportAsync(FaultLog log, CancellationToken stop)
    {
        int told = 0;
        while (!stop.IsCancellationRequested)
        {
            for (int count = log.Count(AcceptFailed); told < count; told++)
            {
                await Console.Out.WriteLineAsync("accept");
            }
            await Task.Delay(20, stop).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private async Task ListenAsync()
    {
        while (await _process.StandardOutput.ReadLineAsync() is { } line)
        {
            if (line == "accept")
            {
                Interlocked.Increment(ref _warnings);
            }
        }
    }

    // The number of the event in the server's log.
    private const int AcceptFailed = 3;
}
