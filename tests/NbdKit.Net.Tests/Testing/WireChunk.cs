namespace NbdKit.Tests.Testing;

/// <summary>One chunk of a structured reply.</summary>
internal sealed record WireChunk(ushort Type, bool IsDone, byte[] Payload);
