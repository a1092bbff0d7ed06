using NbdKit.Filters.Partition;

namespace NbdKit.Filters;

/// <summary>Serves one partition of a disk as if it were the whole export (nbdkit-partition-filter(1)).</summary>
/// <remarks>
/// <para>
/// Reads GPT and MBR partition tables, each time an export is opened: different exports may be partitioned in different
/// ways. A GPT is accepted only if the checksums of its header and of its entries are right; if the one at the start of
/// the disk is damaged, the backup at its end is used. Partitions of an MBR have the numbers 1 to 4, the logical
/// partitions of its extended partition follow from 5 on. The extended partition itself cannot be served.
/// </para>
/// <para>
/// Opening the export fails with EINVAL if there is no table, if it is damaged, if there is no such partition, or if
/// the partition is not inside the disk or begins inside a block of a layer that has a minimum block size.
/// </para>
/// </remarks>
public sealed class PartitionFilter : INbdFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "partition",
        "serve one partition of a disk",
        [
            new NbdParameter("partition", "number of the partition, from 1") { IsRequired = true },
            new NbdParameter(
                "partition-sectorsize",
                "512 or 4096 (default: the layer's minimum block size if it is one of these, else 512)"),
        ],
        parameters => new PartitionFilter
        {
            Partition = parameters.Integer("partition") ?? 0,
            SectorSize = parameters.Size("partition-sectorsize"),
        });

    /// <summary>The number of the partition, as its table and most systems count.</summary>
    /// <value>From 1.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public required int Partition
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1, nameof(Partition));
            field = value;
        }
    }

    /// <summary>
    /// The size in bytes of the sectors in which the table counts, or null to take the minimum block size of the layer
    /// below if that is 512 or 4,096, and 512 if not.
    /// </summary>
    /// <value>Null by default; otherwise 512 or 4,096.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is neither.</exception>
    public long? SectorSize
    {
        get;
        init
        {
            if (value is not (null or 512 or 4096))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(SectorSize), value, "The size of a sector is 512 or 4096 bytes.");
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "partition";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new PartitionHandle(Partition, SectorSize);
    }
}
