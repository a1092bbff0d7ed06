namespace NbdKit.Tests.Testing;

/// <summary>One opened export of <see cref="FaultyPlugin"/>.</summary>
internal sealed class FaultyHandle(FaultyPlugin plugin, string export) : INbdPluginHandle
{
    private const long Size = ((long)FaultyRegion.Missing + 1) * FaultyPlugin.RegionSize;

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
    {
        if (export == "info throws")
        {
            throw new InvalidOperationException("What a disk.");
        }
        return new(new NbdExportInfo
        {
            Size = Size,
            CanWrite = true,
            CanFlush = true,
            CanTrim = true,
            CanZero = Support.Native,
            CanFua = export == "claims" ? Support.Native : Support.Emulate,
            CanCache = Support.Native,
            CanExtents = true,
            CanMultiConn = true,
        });
    }

    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => (await plugin.RangeAsync(offset, buffer.Length, cancellationToken)).CopyTo(buffer);

    public async ValueTask WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => data.CopyTo(await plugin.RangeAsync(offset, data.Length, cancellationToken));

    public ValueTask FlushAsync(CancellationToken cancellationToken)
        => export == "flush throws" ? throw new InvalidOperationException("Nothing was flushed.") : default;

    public async ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => (await plugin.RangeAsync(offset, length, cancellationToken)).Span.Clear();

    public async ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => (await plugin.RangeAsync(offset, length, cancellationToken)).Span.Clear();

    public async ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => await plugin.RangeAsync(offset, length, cancellationToken);

    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        await plugin.RangeAsync(offset, length, cancellationToken);
        switch (export)
        {
            case "extents: none":
                break;
            case "extents: too late":
                extents.Add(offset + 1, 1, ExtentStatus.Hole);
                break;
            case "extents: elsewhere":
                extents.Add(0, offset, ExtentStatus.Hole);
                break;
            case "extents: a gap":
                extents.Add(offset, 1, ExtentStatus.Hole);
                extents.Add(offset + 2, 1, ExtentStatus.Zero);
                break;
            case "extents: beyond":
                extents.Add(offset, Size, ExtentStatus.Hole | ExtentStatus.Zero);
                break;
            case "extents: junk":
                extents.Add(offset, length, (ExtentStatus)uint.MaxValue);
                break;
            default:
                extents.Add(offset, length, ExtentStatus.Data);
                break;
        }
    }

    public ValueTask CloseAsync()
    {
        plugin.Closed();
        return export == "close throws" ? throw new InvalidOperationException("It does not close.") : default;
    }
}
