using Microsoft.Extensions.Logging;

namespace NbdKit.Tests.Testing;

/// <summary>One message that was logged.</summary>
internal sealed record LogEntry(LogLevel Level, EventId Event, string Text, Exception? Exception);
