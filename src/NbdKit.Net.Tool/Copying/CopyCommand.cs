using System.Runtime.CompilerServices;

namespace NbdKit.Tool.Copying;

/// <summary>The verb <c>copy</c>.</summary>
internal static class CopyCommand
{
    /// <summary>The first argument that selects it.</summary>
    public const string Verb = "copy";

    private const int Differs = 2;
    private const int Interrupted = 3;

    /// <summary>Runs it.</summary>
    /// <param name="arguments">The arguments after <c>copy</c>.</param>
    /// <param name="catalogue">The plugins and filters.</param>
    /// <returns>The exit status.</returns>
    /// <exception cref="CommandException">The arguments make no sense, or a side cannot be opened.</exception>
    public static async Task<int> RunAsync(IReadOnlyList<string> arguments, NbdCatalogue catalogue)
    {
        CopyCommandOptions options = CopyCommandLine.Parse(arguments);
        if (options.Help)
        {
            await Console.OpenStandardOutput().WriteAsync(StandardText.Bytes(HelpText())).ConfigureAwait(false);
            return 0;
        }
        using var signals = new SignalHandling();
        using var log = new LogFactory(new CommandOptions { Verbose = options.Verbose });
        try
        {
            return await CopyAsync(options, catalogue, log, signals.Stop).ConfigureAwait(false);
        }
        catch (OperationCanceledException) when (signals.Stop.IsCancellationRequested)
        {
            Say(options.Resume ? "interrupted; the same command goes on from here" : "interrupted");
            return Interrupted;
        }
        catch (NbdCopyException e) when (e.Fault == NbdCopyFault.Mismatch)
        {
            Say(StandardText.OneLine(e));
            return Differs;
        }
    }

    /// <summary>The text of <c>copy --help</c>.</summary>
    public static string HelpText() => $"""
        nbdkit-net copy [OPTION...] SRC DST

        Copies a disk. SRC and DST are NBD URIs, files, block devices, - for standard input and output, or chains in square
        brackets, written as for serving them: [ --filter=cow file disk.img ]. DST may also be null: for nowhere.

        A file that is DST is created, or made anew, with the size of SRC. Anything else must be at least that large.

        Options:
        {VerbLine.Help(CopyCommandLine.Known)}
        Exit status: 0 the copy is complete, 1 it failed, 2 --verify found a difference, 3 it was interrupted by a signal.
        With --resume, the same command takes up a copy that ended with 1 or 3, or whose process died. Neither side may be
        changed in between.

        """;

    private static async Task<int> CopyAsync(
        CopyCommandOptions options, NbdCatalogue catalogue, LogFactory log, CancellationToken cancellationToken)
    {
        var source = new CopySide();
        await using ConfiguredAsyncDisposable sourceEnd = source.ConfigureAwait(false);
        var destination = new CopySide();
        await using ConfiguredAsyncDisposable destinationEnd = destination.ConfigureAwait(false);
        NbdCopySource from = await source.OpenSourceAsync(options, catalogue, log, cancellationToken).ConfigureAwait(false);
        (NbdCopyDestination to, NbdCopyOptions copy) = await destination.OpenDestinationAsync(
            options, source.Size, catalogue, log, cancellationToken).ConfigureAwait(false);
        NbdCopyResult result;
        using (var progress = CopyProgress.Start(options))
        {
            copy = copy with
            {
                Progress = progress is null ? null : progress.Show,
                JournalIdentity = options.Resume ? Identity(options) : "",
            };
            result = await NbdCopy.CopyAsync(from, to, copy, cancellationToken).ConfigureAwait(false);
        }
        if (options.Verbose)
        {
            Say(Summary(result));
        }
        if (result.Sha256 is { } hash)
        {
            byte[] line = StandardText.Bytes($"{Convert.ToHexStringLower(hash.Span)}  {options.Source?.Text ?? "-"}\n");
            bool isTaken = options.Destination is null && !options.ToNowhere;
            using Stream output = isTaken ? Console.OpenStandardError() : Console.OpenStandardOutput();
            await output.WriteAsync(line, CancellationToken.None).ConfigureAwait(false);
        }
        return 0;
    }

    /// <summary>What must be the same for the copy to be resumed: a file that was changed since is another source.</summary>
    private static string Identity(CopyCommandOptions options)
    {
        string source = options.Source!.Path is { } path
            ? $"{path} of {File.GetLastWriteTimeUtc(path):yyyy-MM-dd HH:mm:ss.fffffff}"
            : options.Source.Text;
        return $"{source} to {options.Destination!.Path ?? options.Destination.Text}";
    }

    private static string Summary(NbdCopyResult result)
    {
        double seconds = Math.Max(result.Elapsed.TotalSeconds, 1e-6);
        return FormattableString.Invariant(
            $"copied {result.Size} bytes in {seconds:0.000} s ({result.Size / seconds / 1e6:0} MB/s): {result.BytesRead} read, {result.BytesWritten} written, {result.BytesZeroed} zeroed, {result.BytesResumed} copied before");
    }

    private static void Say(string text) => StandardText.WriteError($"{Command.ProgramName}: {text}");
}
