namespace NbdKit;

/// <summary>How a connection ended.</summary>
/// <param name="Reason">The kind of end.</param>
/// <param name="Detail">What exactly happened, for people.</param>
public sealed record NbdDisconnect(NbdDisconnectReason Reason, string Detail);
