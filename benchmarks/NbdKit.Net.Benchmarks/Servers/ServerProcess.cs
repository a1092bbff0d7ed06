using System.Diagnostics;
using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using System.Text;
using NbdKit.Benchmarks.Load;

namespace NbdKit.Benchmarks.Servers;

/// <summary>A server that runs as a process of its own.</summary>
internal sealed class ServerProcess : IDisposable
{
    private const int Terminate = 15;

    private static readonly TimeSpan Deadline = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan StopDeadline = TimeSpan.FromSeconds(20);

    private readonly Process _process;
    private readonly StringBuilder _errors = new();

    private ServerProcess(ServerCommand command)
    {
        EndPoint = command.EndPoint;
        long start = Stopwatch.GetTimestamp();
        _process = Process.Start(new ProcessStartInfo(command.Program, command.Arguments)
        {
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
        })!;
        _process.ErrorDataReceived += (_, line) =>
        {
            lock (_errors)
            {
                _errors.AppendLine(line.Data);
            }
        };
        _process.BeginErrorReadLine();
        try
        {
            WaitUntilListening(start, leavesAnother: command.NumberFile is not null);
            StartTime = Stopwatch.GetElapsedTime(start);
            if (command.NumberFile is { } number)
            {
                _process.WaitForExit();
                _process.Dispose();
                _process = Process.GetProcessById(int.Parse(File.ReadAllText(number)));
            }
        }
        catch (Exception e) when (e is InvalidOperationException or TimeoutException)
        {
            Dispose();
            throw new InvalidOperationException(
                $"{command.Program} {string.Join(' ', command.Arguments)}: {e.Message} {_errors}".Trim(), e);
        }
    }

    public EndPoint EndPoint { get; }

    /// <summary>The NBD URI of a server on a Unix socket.</summary>
    public string Uri => $"nbd+unix:///?socket={EndPoint}";

    /// <summary>The time from its start until it greeted the first client.</summary>
    public TimeSpan StartTime { get; }

    /// <summary>User and system time of all of its threads (utime and stime of /proc/PID/stat).</summary>
    public TimeSpan ProcessorTime
    {
        get
        {
            _process.Refresh();
            return _process.TotalProcessorTime;
        }
    }

    public long ResidentBytes
    {
        get
        {
            _process.Refresh();
            return _process.WorkingSet64;
        }
    }

    /// <summary>The most that was ever resident, or what is known of it once the process has ended: nothing.</summary>
    public long PeakBytes
    {
        get
        {
            _process.Refresh();
            return HasEnded ? 0 : _process.PeakWorkingSet64;
        }
    }

    /// <summary>Whether the process is not there any more.</summary>
    public bool HasEnded => _process.HasExited;

    /// <summary>Whether it ended by itself and without complaint, or cannot be asked because another process had started it.</summary>
    public bool EndedWell
    {
        get
        {
            try
            {
                return _process.ExitCode == 0;
            }
            catch (InvalidOperationException)
            {
                return true;
            }
        }
    }

    /// <summary>Asks it to stop, as a service manager does.</summary>
    public void AskToStop() => _ = kill(_process.Id, Terminate);

    /// <summary>Starts a server and waits until it listens.</summary>
    /// <exception cref="InvalidOperationException">It ended instead, or took too long; the message has what it said.</exception>
    public static ServerProcess Start(ServerCommand command) => new(command);

    /// <summary>Asks the server of <see cref="Modes.ServeMode"/> for a figure.</summary>
    public long Ask(string question)
    {
        _process.StandardInput.WriteLine(question);
        _process.StandardInput.Flush();
        return long.Parse(_process.StandardOutput.ReadLine()
            ?? throw new InvalidOperationException($"The server ended. {_errors}"));
    }

    public void Dispose()
    {
        if (!_process.HasExited)
        {
            if (OperatingSystem.IsWindows() || kill(_process.Id, Terminate) != 0)
            {
                _process.Kill();
            }
            if (!_process.WaitForExit(StopDeadline))
            {
                _process.Kill();
                _process.WaitForExit();
            }
        }
        _process.Dispose();
    }

    private void WaitUntilListening(long start, bool leavesAnother)
    {
        Span<byte> greeting = stackalloc byte[LoadHandshake.GreetingSize];
        while (true)
        {
            try
            {
                using Socket socket = LoadHandshake.Connect(EndPoint);
                LoadHandshake.ReceiveExactly(socket, greeting);
                return;
            }
            catch (SocketException) when (!_process.HasExited || (leavesAnother && _process.ExitCode == 0))
            {
                // Not yet.
            }
            catch (SocketException e)
            {
                _process.WaitForExit();
                throw new InvalidOperationException($"It ended with {_process.ExitCode}.", e);
            }
            if (Stopwatch.GetElapsedTime(start) > Deadline)
            {
                throw new TimeoutException("It does not listen.");
            }
            Thread.Sleep(1);
        }
    }

    [DllImport("libc")]
    private static extern int kill(int process, int signal);
}
