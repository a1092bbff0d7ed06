namespace NbdKit.Tests.Testing;

/// <summary>One descriptor of a block status reply.</summary>
internal readonly record struct WireExtent(ulong Length, ulong Status);
