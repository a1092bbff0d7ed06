namespace NbdKit.Tests.Testing;

/// <summary>One data call that reached the plugin.</summary>
internal sealed record PluginCall(PluginOp Op, string Export, long Offset, long Length, RequestFlags Flags)
{
    /// <summary>The memory to fill by a read; valid until the call completes.</summary>
    public Memory<byte> Buffer { get; init; }

    public CancellationToken CancellationToken { get; init; }
}
