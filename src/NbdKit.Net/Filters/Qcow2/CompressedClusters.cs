using System.Buffers;
using System.IO.Compression;
using NbdKit.Layers;

namespace NbdKit.Filters.Qcow2;

/// <summary>The compressed clusters of one image, as a cache wants them: each a raw deflate stream of exactly one cluster.</summary>
internal sealed class CompressedClusters(ImageDisk file, ClusterMap map, int clusterSize) : IBlockSource
{
    /// <param name="position">What the entry of the cluster says of its place.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public async ValueTask<byte[]> LoadAsync(long position, CancellationToken cancellationToken)
    {
        (long offset, int length) = map.Compressed(position);
        byte[] packed = ArrayPool<byte>.Shared.Rent(length);
        try
        {
            await file.ReadAsync(packed.AsMemory(0, length), offset, cancellationToken).ConfigureAwait(false);
            // This is work for the thread pool, not for whoever receives requests.
            await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
            return Inflate(packed, length, offset);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(packed);
        }
    }

    // Sectors are counted, so that anything may follow the stream.
    private byte[] Inflate(byte[] packed, int length, long offset)
    {
        byte[] cluster = new byte[clusterSize];
        using var deflate = new DeflateStream(new MemoryStream(packed, 0, length), CompressionMode.Decompress);
        int count;
        bool isLonger;
        try
        {
            count = deflate.ReadAtLeast(cluster, clusterSize, throwOnEndOfStream: false);
            isLonger = count == clusterSize && deflate.ReadByte() >= 0;
        }
        catch (Exception e) when (e is InvalidDataException or IOException)
        {
            throw Fault.Damaged($"the compressed cluster at {offset} is no deflate stream ({e.Message})");
        }
        return count == clusterSize && !isLonger
            ? cluster
            : throw Fault.Damaged(
                $"the compressed cluster at {offset} has {(isLonger ? "more than " : "")}{count} bytes instead of {clusterSize}");
    }
}
