namespace NbdKit.Tests.Testing;

/// <summary>
/// A disk of gigabytes without their memory: what was never written has a pattern without a zero byte, ranges of zeroes are kept
/// as ranges, and other bytes only in the sectors that a test watches. For whether a zero or a trim is complete.
/// </summary>
internal sealed class VastDisk(long size) : INbdPlugin, INbdPluginHandle
{
    private const int Sector = 512;

    private readonly Lock _lock = new();
    private readonly CoveredRanges _zero = new();
    private readonly Dictionary<long, byte[]> _kept = [];

    public string Name => "vast";

    public ThreadModel ThreadModel => ThreadModel.Parallel;

    public NbdExportInfo Info { get; init; } = new()
    {
        Size = size,
        CanWrite = true,
        CanFlush = true,
        CanTrim = true,
        CanZero = Support.Native,
        CanFastZero = true,
        CanFua = Support.Native,
        CanExtents = true,
    };

    /// <summary>What was trimmed.</summary>
    public CoveredRanges Trimmed { get; } = new();

    /// <summary>The sectors whose bytes are kept, whatever is written to them: those of these offsets.</summary>
    public HashSet<long> Watched { get; } = [];

    /// <summary>Puts bytes in that stay, such as a header.</summary>
    public void Put(long offset, ReadOnlySpan<byte> bytes)
    {
        for (long sector = offset / Sector; sector <= (offset + bytes.Length - 1) / Sector; sector++)
        {
            Watched.Add(sector);
        }
        Store(offset, bytes);
    }

    public void Watch(long offset) => Watched.Add(offset / Sector);

    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken) => new(this);

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(Info);

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            Span<byte> rest = buffer.Span;
            while (rest.Length > 0)
            {
                int within = (int)(offset % Sector);
                Span<byte> part = rest[..Math.Min(rest.Length, Sector - within)];
                Bytes(offset / Sector).AsSpan(within, part.Length).CopyTo(part);
                rest = rest[part.Length..];
                offset += part.Length;
            }
        }
        return default;
    }

    public ValueTask WriteAsync(ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        if (data.Span.ContainsAnyExcept((byte)0))
        {
            Store(offset, data.Span);
            return default;
        }
        return ZeroAsync(offset, data.Length, flags, cancellationToken);
    }

    public ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    public ValueTask TrimAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            Trimmed.Add(offset, offset + length);
        }
        return ZeroAsync(offset, length, flags, cancellationToken);
    }

    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        long end = offset + length;
        long first = (offset + Sector - 1) / Sector;
        long last = end / Sector;
        if (first > last)
        {
            Store(offset, new byte[length]);
            return default;
        }
        Store(offset, new byte[(first * Sector) - offset]);
        Store(last * Sector, new byte[end - (last * Sector)]);
        lock (_lock)
        {
            _zero.Add(first, last);
            foreach (long sector in _kept.Keys.Where(sector => sector >= first && sector < last).ToArray())
            {
                _kept.Remove(sector);
            }
        }
        return default;
    }

    public ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        extents.Add(offset, length, ExtentStatus.Data);
        return default;
    }

    private void Store(long offset, ReadOnlySpan<byte> bytes)
    {
        lock (_lock)
        {
            while (bytes.Length > 0)
            {
                int within = (int)(offset % Sector);
                ReadOnlySpan<byte> part = bytes[..Math.Min(bytes.Length, Sector - within)];
                long sector = offset / Sector;
                if (part.Length < Sector || Watched.Contains(sector))
                {
                    byte[] changed = [.. Bytes(sector)];
                    part.CopyTo(changed.AsSpan(within));
                    _kept[sector] = changed;
                }
                bytes = bytes[part.Length..];
                offset += part.Length;
            }
        }
    }

    private byte[] Bytes(long sector)
    {
        if (_kept.TryGetValue(sector, out byte[]? kept))
        {
            return kept;
        }
        byte[] bytes = new byte[Sector];
        if (!_zero.Contains(sector))
        {
            bytes.AsSpan().Fill((byte)((sector % 255) + 1));
        }
        return bytes;
    }
}
