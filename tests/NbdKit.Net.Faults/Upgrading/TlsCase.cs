namespace NbdKit.Faults.Upgrading;

/// <summary>One misuse of TLS by a client.</summary>
/// <param name="Name">What the client does.</param>
/// <param name="RunAsync">Does it, and fails unless the server ends it as it should.</param>
internal sealed record TlsCase(string Name, Func<TlsScene, Task> RunAsync);
