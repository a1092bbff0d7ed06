using System.Globalization;
using System.Text.Encodings.Web;
using Microsoft.Extensions.Logging;

namespace NbdKit.Filters;

// Where lines go, and how what is in them is written.
public sealed partial class LogFilter
{
    private readonly Lock _lock = new();
    private StreamWriter? _file;
    private NbdBackend? _backend;
    private bool _failed;

    /// <summary>Closes the file. Called by the chain.</summary>
    public void Dispose()
    {
        lock (_lock)
        {
            _file?.Dispose();
            _file = null;
        }
    }

    private void OpenTargets()
    {
        if (LogFile is null && Writer is null && Logger is null)
        {
            throw new InvalidOperationException("The filter log has nothing to log to: set LogFile, Writer or Logger.");
        }
        if (LogFile is not null)
        {
            var stream = new FileStream(
                LogFile, Append ? FileMode.Append : FileMode.Create, FileAccess.Write, FileShare.ReadWrite, bufferSize: 0);
            _file = new StreamWriter(stream) { AutoFlush = true, NewLine = "\n" };
        }
    }

    private void Write(string line)
    {
        try
        {
            if (Logger is not null)
            {
                Request(Logger, line);
            }
            if (LogFile is null && Writer is null)
            {
                return;
            }
            lock (_lock)
            {
                // The time is taken inside: lines are in the order of their times.
                string stamped = string.Create(
                    CultureInfo.InvariantCulture, $"{TimeProvider.GetUtcNow():yyyy-MM-dd HH:mm:ss.ffffff} {line}");
                _file?.WriteLine(stamped);
                Writer?.WriteLine(stamped);
                Writer?.Flush();
            }
        }
        catch (Exception e)
        {
            // A log that fails is no reason to fail a request. Say so once.
            if (_backend is not null && !Interlocked.Exchange(ref _failed, true))
            {
                _backend.LogLayerFailure("log", e);
            }
        }
    }

    [LoggerMessage(60, LogLevel.Information, "{Line}")]
    private static partial void Request(ILogger logger, string line);

    private static int Bit(bool value) => value ? 1 : 0;

    private static string Quote(string text) => $"\"{JavaScriptEncoder.Default.Encode(text)}\"";

    private static string Failure(Exception e)
    {
        string error = e switch
        {
            NbdException { Error: NbdError.PermissionDenied } => "EPERM",
            NbdException { Error: NbdError.OutOfMemory } => "ENOMEM",
            NbdException { Error: NbdError.InvalidArgument } => "EINVAL",
            NbdException { Error: NbdError.NoSpace } => "ENOSPC",
            NbdException { Error: NbdError.Overflow } => "EOVERFLOW",
            NbdException { Error: NbdError.NotSupported } or NotSupportedException => "ENOTSUP",
            NbdException { Error: NbdError.Shutdown } or OperationCanceledException => "ESHUTDOWN",
            _ => "EIO",
        };
        return $"return=-1 error={error} message={Quote(e.Message)}";
    }
}
