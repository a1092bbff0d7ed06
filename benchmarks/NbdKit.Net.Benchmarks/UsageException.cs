namespace NbdKit.Benchmarks;

/// <summary>The program was called wrongly, or something that it needs is not there.</summary>
internal sealed class UsageException(string message, Exception? inner = null) : Exception(message, inner);
