using Microsoft.Extensions.Logging;

namespace NbdKit.Faults.Hostile;

/// <summary>Counts what a server logs, and keeps what only a defect of the server can be the reason of.</summary>
internal sealed class FaultLog : ILoggerFactory, ILogger
{
    private const int TailLines = 60;

    private readonly Lock _lock = new();
    private readonly Dictionary<int, int> _counts = [];
    private readonly List<string> _defects = [];
    private readonly Queue<string> _last = new();

    /// <summary>How often an event happened.</summary>
    public int Count(int eventId)
    {
        lock (_lock)
        {
            return _counts.GetValueOrDefault(eventId);
        }
    }

    /// <summary>The last that was said, for who wants to know why a client was cut off.</summary>
    public string Tail
    {
        get
        {
            lock (_lock)
            {
                return string.Join("\n", _last);
            }
        }
    }

    /// <summary>Fails if a connection was ended by a defect of the server, or a request failed with what nobody foresaw.</summary>
    public void AssertClean()
    {
        lock (_lock)
        {
            if (_defects.Count > 0)
            {
                throw new InvalidOperationException($"The server logged {_defects.Count} defects; the first: {_defects[0]}");
            }
        }
    }

    public void AddProvider(ILoggerProvider provider)
    {
    }

    public ILogger CreateLogger(string categoryName) => this;

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Information;

    public void Log<TState>(
        LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        lock (_lock)
        {
            _counts[eventId.Id] = _counts.GetValueOrDefault(eventId.Id) + 1;
            _last.Enqueue($"{DateTime.UtcNow:HH:mm:ss.fff} {formatter(state, exception)}");
            if (_last.Count > TailLines)
            {
                _last.Dequeue();
            }
            if (logLevel >= LogLevel.Error && _defects.Count < 100)
            {
                _defects.Add($"{formatter(state, exception)}: {exception}");
            }
        }
    }

    public void Dispose()
    {
    }
}
