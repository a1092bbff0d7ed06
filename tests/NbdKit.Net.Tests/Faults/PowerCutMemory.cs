namespace NbdKit.Tests.Faults;

/// <summary>What is on stable storage: an array, as fast as can be.</summary>
internal sealed class PowerCutMemory(byte[] content) : INbdPlugin, INbdPluginHandle
{
    public string Name => "stable";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(new NbdExportInfo
    {
        Size = content.Length,
        CanWrite = true,
        CanFlush = true,
        CanTrim = true,
        CanZero = Support.Native,
        CanFastZero = true,
        CanFua = Support.Native,
        CanMultiConn = true,
    });

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        content.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
        return default;
    }

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        data.Span.CopyTo(content.AsSpan((int)offset));
        return default;
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => ZeroAsync(offset, length, flags, cancellationToken);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        content.AsSpan((int)offset, (int)length).Clear();
        return default;
    }
}
