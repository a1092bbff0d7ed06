using System.Collections.Concurrent;
using Microsoft.Extensions.Logging;

namespace NbdKit.Tests.Testing;

/// <summary>Keeps all that is logged.</summary>
internal sealed class RecordingLog : ILoggerFactory, ILogger
{
    public ConcurrentQueue<LogEntry> Entries { get; } = [];

    /// <summary>Called with each message, on the thread that logs it.</summary>
    public Action<LogEntry>? OnLogged { get; init; }

    public void AddProvider(ILoggerProvider provider)
    {
    }

    public ILogger CreateLogger(string categoryName) => this;

    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => true;

    public void Log<TState>(
        LogLevel logLevel, EventId eventId, TState state, Exception? exception, Func<TState, Exception?, string> formatter)
    {
        var entry = new LogEntry(logLevel, eventId, formatter(state, exception), exception);
        Entries.Enqueue(entry);
        OnLogged?.Invoke(entry);
    }

    public void Dispose()
    {
    }
}
