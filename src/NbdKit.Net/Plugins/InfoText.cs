namespace NbdKit.Plugins;

/// <summary>A few bytes that do not change.</summary>
/// <param name="text">The bytes.</param>
/// <param name="isSame">Whether all connections to the export see the same.</param>
internal sealed class InfoText(byte[] text, bool isSame) : INbdPluginHandle
{
    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(new NbdExportInfo { Size = text.Length, CanCache = Support.Native, CanMultiConn = isSame });

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        text.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
        return default;
    }
}
