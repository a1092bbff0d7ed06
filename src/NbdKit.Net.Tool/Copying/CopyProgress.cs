using Microsoft.Win32.SafeHandles;

namespace NbdKit.Tool.Copying;

/// <summary>Shows how far a copy is: a bar on a terminal, lines of <c>N/100</c> elsewhere.</summary>
internal sealed class CopyProgress : IDisposable
{
    private const int BarWidth = 32;

    private readonly Stream _output;
    private readonly bool _isTerminal;
    private long _shown = -1;

    internal CopyProgress(Stream output, bool isTerminal)
    {
        _output = output;
        _isTerminal = isTerminal;
    }

    /// <summary>Begins to show progress if the options ask for it.</summary>
    /// <exception cref="CommandException">The file descriptor is not open for writing.</exception>
    public static CopyProgress? Start(CopyCommandOptions options)
    {
        if (options.ProgressDescriptor is { } descriptor)
        {
            try
            {
                return new CopyProgress(
                    new FileStream(new SafeFileHandle(descriptor, ownsHandle: false), FileAccess.Write, bufferSize: 0), false);
            }
            catch (Exception e) when (e is IOException or ArgumentException or UnauthorizedAccessException)
            {
                throw new CommandException($"--progress={descriptor}: {StandardText.OneLine(e)}", e);
            }
        }
        return options.Progress ? new CopyProgress(Console.OpenStandardError(), !Console.IsErrorRedirected) : null;
    }

    /// <summary>Shows it; called by one thread at a time.</summary>
    public void Show(NbdCopyProgress progress)
    {
        if (_isTerminal)
        {
            _shown = 0;
            _output.Write(StandardText.Bytes("\r" + Bar(progress) + "\u001b[K"));
        }
        else if (progress.TotalBytes is { } total && Percent(progress.BytesDone, total) is var percent && percent != _shown)
        {
            _shown = percent;
            _output.Write(StandardText.Bytes($"{percent}/100\n"));
        }
    }

    /// <summary>Leaves the line of the bar, if there is one.</summary>
    public void Dispose()
    {
        if (_isTerminal && _shown >= 0)
        {
            _output.Write("\n"u8);
        }
        _output.Dispose();
    }

    /// <summary>A line such as <c>copying  42 % [#####-------]  210 MB/s  0:12</c>.</summary>
    internal static string Bar(NbdCopyProgress progress)
    {
        double seconds = Math.Max(progress.Elapsed.TotalSeconds, 1e-3);
        double rate = progress.BytesDone / seconds;
        string what = progress.IsVerifying ? "verifying" : "copying";
        string speed = progress.IsVerifying ? "" : FormattableString.Invariant($" {rate / 1e6,6:0} MB/s");
        if (progress.TotalBytes is not { } total)
        {
            return FormattableString.Invariant($"{what} {progress.BytesDone / 1e6:0} MB{speed}");
        }
        long percent = Percent(progress.BytesDone, total);
        int full = (int)(percent * BarWidth / 100);
        string bar = new string('#', full) + new string('-', BarWidth - full);
        string left = progress.IsVerifying || rate <= 0 ? "" : " " + Clock((total - progress.BytesDone) / rate);
        return $"{what} {percent,3} % [{bar}]{speed}{left}";
    }

    private static string Clock(double seconds)
    {
        long whole = (long)Math.Min(seconds, 359_999);
        return whole >= 3600
            ? FormattableString.Invariant($"{whole / 3600}:{whole / 60 % 60:00}:{whole % 60:00}")
            : FormattableString.Invariant($"{whole / 60}:{whole % 60:00}");
    }

    private static long Percent(long done, long total) => total == 0 ? 100 : (long)((double)done / total * 100);
}
