namespace NbdKit.Faults.Failing;

/// <summary>One context of a <see cref="FailingPlugin"/>, on which nothing that is written stays.</summary>
internal sealed class FailingHandle(FailingPlugin plugin, FailureSource source, byte[] content, bool sparse) : INbdPluginHandle
{
    public const int Size = 256 << 10;

    /// <summary>What it can do: everything.</summary>
    public static NbdExportInfo Info(bool sparse) => new()
    {
        Size = Size,
        CanWrite = true,
        CanFlush = true,
        CanTrim = true,
        CanZero = Support.Native,
        CanFua = Support.Native,
        CanCache = Support.Native,
        CanExtents = true,
        CanReadSparse = sparse ? Support.Native : Support.None,
    };

    public async ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
    {
        if (source.IsNonsense(Callback.GetInfo))
        {
            return null!;
        }
        await source.PassAsync(Callback.GetInfo);
        return Info(sparse);
    }

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        content.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
        return source.PassAsync(Callback.Read);
    }

    public ValueTask ReadSparseAsync(Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
    {
        content.AsSpan((int)offset, buffer.Length).CopyTo(buffer.Span);
        if (source.IsNonsense(Callback.ReadSparse))
        {
            extents.Add(offset, 1, ExtentStatus.Zero);
            extents.Add(offset + 100, 1, ExtentStatus.Zero);
        }
        return source.PassAsync(Callback.ReadSparse);
    }

    public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => source.PassAsync(Callback.Write);

    public ValueTask FlushAsync(CancellationToken cancellationToken) => source.PassAsync(Callback.Flush);

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => source.PassAsync(Callback.Trim);

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => source.PassAsync(Callback.Zero);

    public ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken) => source.PassAsync(Callback.Cache);

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        if (source.IsNonsense(Callback.Extents))
        {
            // Nothing at all.
            return default;
        }
        extents.Add(offset, length, ExtentStatus.Data);
        return source.PassAsync(Callback.Extents);
    }

    public ValueTask CloseAsync()
    {
        plugin.CountClosed();
        return source.PassAsync(Callback.Close);
    }
}
