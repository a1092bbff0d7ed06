using Microsoft.Extensions.Logging;

namespace NbdKit.Faults.Hostile;

/// <summary>Counts what a server logs, and keeps what only a defect of the server can be the reason of.</summary>
internal sealed class FaultLog : ILoggerFactory, ILogger
{
    private readonly Lock _lock = new();
    private readonly Dictionary<int, int> _counts = [];
    private readonly List<string> _defects = [];

    /// <summary>How often an event happened.</summary>
    public int Count(int eventId)
    {
        lock (_lock)
        {
            return _counts.GetValueOrDefault(eventId);
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
