using System.Text;

namespace NbdKit.Filters;

/// <summary>The disk of the tls-fallback filter: a message and zeroes. Nothing is attached below it, and it never asks.</summary>
internal sealed class FallbackDisk : INbdFilterHandle
{
    private readonly byte[] _content = new byte[TlsFallbackFilter.Size];

    public FallbackDisk(string message) => Encoding.UTF8.GetBytes(message, _content);

    public bool KeepsNext => true;

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(new NbdExportInfo { Size = _content.Length, CanCache = Support.Native, CanMultiConn = true });

    public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        _content.AsMemory((int)offset, buffer.Length).CopyTo(buffer);
        return default;
    }

    public ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => throw Refused();

    public ValueTask FlushAsync(NextContext next, CancellationToken cancellationToken) => default;

    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw Refused();

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw Refused();

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken) => default;

    public ValueTask ExtentsAsync(
        NextContext next,
        long offset,
        long length,
        RequestFlags flags,
        ExtentList extents,
        CancellationToken cancellationToken)
    {
        extents.Add(offset, length, ExtentStatus.Data);
        return default;
    }

    private static NbdException Refused() => new(NbdError.PermissionDenied, "the disk for clients without TLS is read-only");
}
