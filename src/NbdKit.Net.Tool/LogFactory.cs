using Microsoft.Extensions.Logging;

namespace NbdKit.Tool;

/// <summary>Loggers that write lines to the standard error or to a file: warnings and worse, or everything.</summary>
internal sealed class LogFactory : ILoggerFactory
{
    public const string ToStandardError = "stderr";
    public const string ToNowhere = "null";

    private readonly string _name;
    private readonly LogLevel _minimum;
    private readonly Action<string>? _write;
    private readonly StreamWriter? _file;

    /// <summary>Opens the log that the options ask for.</summary>
    /// <param name="options">The options.</param>
    /// <exception cref="CommandException">The log file cannot be opened.</exception>
    public LogFactory(CommandOptions options)
    {
        _name = options.Name;
        _minimum = options.Verbose ? LogLevel.Trace : LogLevel.Warning;
        switch (options.Log)
        {
            case ToStandardError:
                _write = StandardText.WriteError;
                break;
            case ToNowhere:
                break;
            default:
                StreamWriter file = Open(options.Log);
                _file = file;
                _write = line =>
                {
                    lock (file)
                    {
                        file.WriteLine(line);
                    }
                };
                break;
        }
    }

    public ILogger CreateLogger(string categoryName)
        => new Logger(
            this, categoryName.StartsWith("NbdKit.", StringComparison.Ordinal) ? categoryName[7..] : categoryName);

    public void AddProvider(ILoggerProvider provider) => throw new NotSupportedException();

    public void Dispose()
    {
        if (_file is not null)
        {
            lock (_file)
            {
                _file.Dispose();
            }
        }
    }

    private static StreamWriter Open(string path)
    {
        try
        {
            return new StreamWriter(path, append: true) { AutoFlush = true, NewLine = "\n" };
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"cannot open the log: {e.Message}", e);
        }
    }

    private static string Word(LogLevel level) => level switch
    {
        LogLevel.Trace or LogLevel.Debug => "debug",
        LogLevel.Information => "info",
        LogLevel.Warning => "warning",
        _ => "error",
    };

    private sealed class Logger(LogFactory owner, string category) : ILogger
    {
        public IDisposable? BeginScope<TState>(TState state)
            where TState : notnull
            => null;

        public bool IsEnabled(LogLevel logLevel)
            => owner._write is not null && logLevel >= owner._minimum && logLevel != LogLevel.None;

        public void Log<TState>(
            LogLevel logLevel,
            EventId eventId,
            TState state,
            Exception? exception,
            Func<TState, Exception?, string> formatter)
        {
            if (!IsEnabled(logLevel))
            {
                return;
            }
            string line = $"{owner._name}: {category}: {Word(logLevel)}: {formatter(state, exception)}";
            if (exception is not null)
            {
                line += owner._minimum == LogLevel.Trace ? $"\n{exception}" : $": {StandardText.OneLine(exception)}";
            }
            owner._write!(line);
        }
    }
}
