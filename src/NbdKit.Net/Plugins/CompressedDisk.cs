using NbdKit.Buffers;

namespace NbdKit.Plugins;

/// <summary>Serves a compressed array to any number of contexts at once.</summary>
internal sealed class CompressedDisk(CompressedArray array) : INbdPluginHandle
{
    private readonly NbdExportInfo _info = new()
    {
        Size = array.Size,
        BlockSize = new BlockSize(1, CompressedPage.Size),
        CanWrite = true,
        CanFlush = true,
        CanTrim = true,
        CanZero = Support.Native,
        CanFastZero = true,
        CanFua = Support.Native,
        CanCache = Support.Native,
        CanMultiConn = true,
        CanExtents = true,
        CanReadSparse = Support.Emulate,
        // Compressing burns CPU.
        IsBlocking = true,
    };

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(_info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        array.Read(offset, buffer.Span);
        return default;
    }

    public ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        array.Write(offset, data.Span);
        return default;
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        array.Zero(offset, length, keepPages: false);
        return default;
    }

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        array.Zero(offset, length, keepPages: (flags & RequestFlags.MayTrim) == 0);
        return default;
    }

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        array.GetExtents(offset, length, (flags & RequestFlags.RequestOne) != 0, extents);
        return default;
    }
}
