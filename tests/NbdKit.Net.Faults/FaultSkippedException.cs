namespace NbdKit.Faults;

/// <summary>A row cannot run on this machine; the message says what is missing.</summary>
internal sealed class FaultSkippedException(string reason) : Exception(reason);
