using Microsoft.Extensions.Logging;

namespace NbdKit.Tests.Testing;

/// <summary>A log that takes its time over a message: until a test lets it go.</summary>
internal sealed class BlockingLog(string text, TaskCompletionSource arrived, ManualResetEventSlim release) : ILoggerFactory, ILogger
{
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
        if (formatter(state, exception).Contains(text, StringComparison.Ordinal))
        {
            arrived.TrySetResult();
            release.Wait(WireClient.Deadline);
        }
    }

    public void Dispose()
    {
    }
}
