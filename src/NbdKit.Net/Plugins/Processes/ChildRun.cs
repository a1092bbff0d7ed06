using System.IO.Pipes;
using System.Runtime.CompilerServices;
using NbdKit.Native;

namespace NbdKit.Plugins.Processes;

/// <summary>Runs a program to its end: gives it its input, takes its output, and kills it if that takes too long.</summary>
internal static class ChildRun
{
    /// <summary>The bytes of standard error that are kept.</summary>
    private const int ErrorsKept = 16_384;

    /// <summary>How long its pipes are listened to after its end, if something that it started holds them open.</summary>
    private static readonly TimeSpan Grace = TimeSpan.FromSeconds(2);

    /// <summary>Runs a program.</summary>
    /// <param name="command">The program.</param>
    /// <param name="input">Its standard input. One that does not read it is none the worse for that.</param>
    /// <param name="output">Takes its standard output; null if that goes elsewhere. A program that prints too much is killed.</param>
    /// <param name="limit">The longest that it may run.</param>
    /// <param name="timeProvider">The clock.</param>
    /// <param name="cancellationToken">Kills it.</param>
    /// <returns>How it ended, and what it said on standard error.</returns>
    /// <exception cref="NbdException">It cannot be run, or took too long.</exception>
    /// <exception cref="OperationCanceledException">It was killed because the token fired.</exception>
    public static async Task<ChildResult> RunAsync(
        ChildCommand command,
        ReadOnlyMemory<byte> input,
        ChildOutput? output,
        TimeSpan limit,
        TimeProvider timeProvider,
        CancellationToken cancellationToken)
    {
        // Starting a process takes its time, and whoever calls may have others to serve.
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        cancellationToken.ThrowIfCancellationRequested();
        ChildProcess child = await StartAsync(command, timeProvider, cancellationToken).ConfigureAwait(false);
        await using ConfiguredAsyncDisposable end = child.ConfigureAwait(false);
        ChildOutput errors = ChildOutput.FirstOf(ErrorsKept);
        using var timeout = new CancellationTokenSource(limit, timeProvider);
        using var hangUp = new CancellationTokenSource(Timeout.InfiniteTimeSpan, timeProvider);
        int status;
        Task pipes;
        using (cancellationToken.UnsafeRegister(Kill, child))
        using (timeout.Token.UnsafeRegister(Kill, child))
        {
            pipes = Task.WhenAll(
                FeedAsync(child.Input, input, hangUp.Token),
                output is null ? Task.CompletedTask : CollectAsync(child, output, hangUp.Token),
                errors.ReadAsync(child.Errors, hangUp.Token));
            status = await child.Ended.ConfigureAwait(false);
        }
        bool killed = cancellationToken.IsCancellationRequested || timeout.IsCancellationRequested || output is { IsTooMuch: true, Drops: false };
        // From here on nothing is left to wait for but what is in the pipes already, unless a process in the background has them.
        if (!pipes.IsCompleted)
        {
            hangUp.CancelAfter(killed ? TimeSpan.Zero : Grace);
        }
        try
        {
            await pipes.ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (hangUp.IsCancellationRequested)
        {
            // What came until then is what it said.
        }
        cancellationToken.ThrowIfCancellationRequested();
        if (timeout.IsCancellationRequested)
        {
            throw new NbdException(NbdError.IoError, $"{command.Name} was killed after {limit.TotalSeconds:0.###} seconds");
        }
        return new ChildResult(status, errors);
    }

    private static void Kill(object? child) => ((ChildProcess)child!).Signal(LinuxProcess.KillSignal);

    /// <summary>
    /// A file that was just written may still be open for writing, for a moment, in a child that another thread is starting.
    /// </summary>
    private static async Task<ChildProcess> StartAsync(
        ChildCommand command, TimeProvider timeProvider, CancellationToken cancellationToken)
    {
        for (int left = 20; ; left--)
        {
            if (ChildProcess.TryStart(command, out ChildProcess? child))
            {
                return child;
            }
            if (left == 0)
            {
                throw new NbdException(NbdError.IoError, $"{command.Name} cannot be run: it is being written to");
            }
            await Task.Delay(TimeSpan.FromMilliseconds(10), timeProvider, cancellationToken).ConfigureAwait(false);
        }
    }

    private static async Task FeedAsync(PipeStream stream, ReadOnlyMemory<byte> input, CancellationToken cancellationToken)
    {
        try
        {
            if (!input.IsEmpty)
            {
                await stream.WriteAsync(input, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (IOException)
        {
            // It did not want to know; whether that is wrong is for its exit code to say.
        }
        finally
        {
            await stream.DisposeAsync().ConfigureAwait(false);
        }
    }

    private static async Task CollectAsync(ChildProcess child, ChildOutput output, CancellationToken cancellationToken)
    {
        await output.ReadAsync(child.Output!, cancellationToken).ConfigureAwait(false);
        if (output.IsTooMuch)
        {
            child.Signal(LinuxProcess.KillSignal);
        }
    }
}
