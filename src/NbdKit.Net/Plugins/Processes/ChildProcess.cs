using System.Diagnostics.CodeAnalysis;
using System.IO.Pipes;
using System.Runtime.InteropServices;
using NbdKit.Native;

namespace NbdKit.Plugins.Processes;

/// <summary>
/// A running child with pipes to its standard streams. Disposing of it kills it if it still runs, with all that it started,
/// and takes note of its end, so that nothing of it stays behind.
/// </summary>
internal sealed class ChildProcess : IAsyncDisposable
{
    private readonly Lock _lock = new();
    private readonly TaskCompletionSource<int> _ended = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly int _pid;
    private readonly PosixSignalRegistration _childSignal;
    private bool _reaped;

    private ChildProcess(int pid, PipeStream input, PipeStream? output, PipeStream errors)
    {
        _pid = pid;
        Input = input;
        Output = output;
        Errors = errors;
        _childSignal = OperatingSystem.IsWindows()
            ? throw new PlatformNotSupportedException()
            : PosixSignalRegistration.Create(PosixSignal.SIGCHLD, _ => Reap());
        // It may have ended before anybody was told of it.
        Reap();
    }

    /// <summary>Its standard input.</summary>
    public PipeStream Input { get; }

    /// <summary>Its standard output; null if that goes elsewhere.</summary>
    public PipeStream? Output { get; }

    /// <summary>Its standard error.</summary>
    public PipeStream Errors { get; }

    /// <summary>Completes when it has ended: its exit code, or the negative number of the signal that ended it.</summary>
    public Task<int> Ended => _ended.Task;

    /// <summary>Whether child processes can be run on this system.</summary>
    public static bool IsAvailable => OperatingSystem.IsLinux() && Environment.Is64BitProcess;

    /// <summary>Starts a program, which takes about a millisecond of the caller's thread.</summary>
    /// <param name="command">The program.</param>
    /// <param name="child">The child.</param>
    /// <returns>False if its file is open for writing just now.</returns>
    /// <exception cref="NbdException">It cannot be run; the message says why.</exception>
    public static bool TryStart(ChildCommand command, [NotNullWhen(true)] out ChildProcess? child)
    {
        if (!IsAvailable)
        {
            throw new NbdException(NbdError.IoError, $"{command.Name} cannot be run: that takes Linux, and 64 bits");
        }
        child = null;
        PipeStream?[] ours = new PipeStream?[3];
        try
        {
            var input = new AnonymousPipeServerStream(PipeDirection.Out, HandleInheritability.None);
            ours[0] = input;
            AnonymousPipeServerStream? output = command.StandardOutput is null
                ? new AnonymousPipeServerStream(PipeDirection.In, HandleInheritability.None)
                : null;
            ours[1] = output;
            var errors = new AnonymousPipeServerStream(PipeDirection.In, HandleInheritability.None);
            ours[2] = errors;
            List<(int, int)> descriptors =
            [
                (0, Number(command.StandardInput ?? input.ClientSafePipeHandle)),
                (1, Number(command.StandardOutput ?? output!.ClientSafePipeHandle)),
                (2, Number(errors.ClientSafePipeHandle)),
            ];
            if (command.Socket is not null)
            {
                descriptors.Add((3, Number(command.Socket)));
            }
            int error = Start(command, CollectionsMarshal.AsSpan(descriptors), out int pid);
            input.DisposeLocalCopyOfClientHandle();
            output?.DisposeLocalCopyOfClientHandle();
            errors.DisposeLocalCopyOfClientHandle();
            if (error == Errno.TextBusy)
            {
                Close(ours);
                return false;
            }
            if (error != 0)
            {
                string why = error == Errno.NoEntry ? "it is not there" : Marshal.GetPInvokeErrorMessage(error);
                throw new NbdException(NbdError.IoError, $"{command.Name} cannot be run: {why}");
            }
            child = new ChildProcess(pid, input, output, errors);
            return true;
        }
        catch
        {
            Close(ours);
            throw;
        }
    }

    /// <summary>Sends a signal to it and to all that it has started; does nothing once it has ended.</summary>
    public void Signal(int signal)
    {
        lock (_lock)
        {
            // Not reaped means that the number is still its own.
            if (!_reaped)
            {
                LinuxProcess.SignalGroup(_pid, signal);
            }
        }
    }

    public async ValueTask DisposeAsync()
    {
        Signal(LinuxProcess.KillSignal);
        _ = await Ended.ConfigureAwait(false);
        _childSignal.Dispose();
        await Input.DisposeAsync().ConfigureAwait(false);
        await Errors.DisposeAsync().ConfigureAwait(false);
        if (Output is not null)
        {
            await Output.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static int Start(ChildCommand command, ReadOnlySpan<(int, int)> descriptors, out int pid)
    {
        string[] arguments = [command.Program, .. command.Arguments];
        int error = LinuxProcess.Start(command.Program, arguments, command.Environment, descriptors, out pid);
        // A script without "#!" is one for the shell, which reads it as a file.
        return error == Errno.NotExecutable
            ? LinuxProcess.Start("/bin/sh", ["/bin/sh", .. arguments], command.Environment, descriptors, out pid)
            : error;
    }

    private static void Close(PipeStream?[] pipes)
    {
        foreach (PipeStream? pipe in pipes)
        {
            pipe?.Dispose();
        }
    }

    // The handles outlive the call that uses their numbers.
    private static int Number(SafeHandle handle) => (int)handle.DangerousGetHandle();

    private void Reap()
    {
        int status;
        lock (_lock)
        {
            if (_reaped || !LinuxProcess.TryReap(_pid, out status))
            {
                return;
            }
            _reaped = true;
        }
        _ended.TrySetResult(status);
    }
}
