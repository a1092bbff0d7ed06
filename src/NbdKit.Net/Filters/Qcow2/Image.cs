using System.Runtime.CompilerServices;
using NbdKit.Layers;

namespace NbdKit.Filters.Qcow2;

/// <summary>The disk that an image holds, as it is now or as one of its snapshots has it. Safe for use by several threads.</summary>
internal sealed partial class Image : IDisk
{
    private readonly ImageDisk _data;
    private readonly BlockCache _clusters;
    private readonly ClusterMap _map;
    private readonly CompressedClusters _compressed;
    private readonly int _clusterSize;
    private readonly bool _isBlocking;

    public Image(ImageParts parts, BlockCache clusters)
    {
        Size = parts.Size;
        ClusterSize = _clusterSize = parts.Header.ClusterSize;
        _data = parts.DataFile is { } data ? new ImageDisk(data.Next) : parts.File;
        _clusters = clusters;
        _map = new ClusterMap(parts.Header, parts.L1, parts.Size, parts.Tables, parts.File.Size, _data.Size);
        _compressed = new CompressedClusters(parts.File, _map, _clusterSize);
        Backing = parts.Backing;
        DataFile = parts.DataFile;
        Own = parts.Own;
        _isBlocking = parts.Own?.Info.IsBlocking == true || parts.DataFile?.Info.IsBlocking == true;
    }

    public long Size { get; }

    public int ClusterSize { get; }

    public bool IsBlocking => _isBlocking || Backing?.IsBlocking == true;

    /// <summary>The disk below, where this one has nothing; or null.</summary>
    public IDisk? Backing { get; }

    private InnerContext? DataFile { get; }

    /// <summary>The file of the image, unless it is the filter's next.</summary>
    private InnerContext? Own { get; }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        while (!buffer.IsEmpty)
        {
            ClusterRun run = await _map.FindAsync(offset, buffer.Length, cancellationToken).ConfigureAwait(false);
            Memory<byte> part = buffer[..(int)run.Length];
            switch (run.Kind)
            {
                case ClusterKind.Data:
                    await ReadUpToAsync(_data.Size - run.Place, part, run.Place, cancellationToken).ConfigureAwait(false);
                    break;
                case ClusterKind.Compressed:
                    byte[] cluster = await _clusters.GetAsync(_compressed, run.Place, cancellationToken).ConfigureAwait(false);
                    cluster.AsMemory((int)(offset & (_clusterSize - 1)), part.Length).CopyTo(part);
                    break;
                case ClusterKind.Unallocated when Backing is { } backing && offset < backing.Size:
                    int count = (int)Math.Min(part.Length, backing.Size - offset);
                    await backing.ReadAsync(part[..count], offset, cancellationToken).ConfigureAwait(false);
                    part.Span[count..].Clear();
                    break;
                default:
                    part.Span.Clear();
                    break;
            }
            buffer = buffer[part.Length..];
            offset += part.Length;
        }
    }

    public async ValueTask DisposeAsync()
    {
        try
        {
            await (Backing?.DisposeAsync() ?? default).ConfigureAwait(false);
        }
        finally
        {
            await InnerContext.CloseAllAsync(new[] { DataFile, Own }.OfType<InnerContext>()).ConfigureAwait(false);
        }
    }

    /// <summary>Reads what there is: the last cluster of a file may be short, and its rest reads as zeroes, as for QEMU.</summary>
    private ValueTask ReadUpToAsync(long available, Memory<byte> part, long place, CancellationToken cancellationToken)
    {
        if (available < part.Length)
        {
            int count = (int)Math.Max(available, 0);
            part.Span[count..].Clear();
            part = part[..count];
        }
        return part.IsEmpty ? default : _data.ReadAsync(part, place, cancellationToken);
    }
}
