using System.Buffers;

namespace NbdKit.Filters.Partition;

/// <summary>Finds out what kind of table a disk has, and a partition in it. Nothing on the disk is trusted.</summary>
internal static class PartitionTable
{
    public static async ValueTask<PartitionRange> FindAsync(
        SectorReader sectors, int number, CancellationToken cancellationToken)
    {
        if (sectors.Count < 2)
        {
            throw Damaged("the disk is too small to be partitioned");
        }
        byte[] rented = ArrayPool<byte>.Shared.Rent(2 * sectors.Size);
        try
        {
            Memory<byte> start = rented.AsMemory(0, 2 * sectors.Size);
            await sectors.ReadAsync(0, start, cancellationToken).ConfigureAwait(false);
            ReadOnlyMemory<byte> boot = start[..sectors.Size];
            bool isProtective = Mbr.HasSignature(boot.Span) && Mbr.IsProtective(boot.Span);
            if (isProtective || GptHeader.HasSignature(start.Span[sectors.Size..]))
            {
                (GptHeader? gpt, string problem) = await Gpt.FindHeaderAsync(sectors, cancellationToken)
                    .ConfigureAwait(false);
                if (gpt is not null)
                {
                    return await Gpt.FindAsync(sectors, gpt, number, cancellationToken).ConfigureAwait(false);
                }
                // A disk that was partitioned anew with an MBR may still hold pieces of an old GPT.
                if (isProtective || !Mbr.HasSignature(boot.Span))
                {
                    throw Damaged($"the GPT and its backup are damaged: {problem}");
                }
            }
            if (!Mbr.HasSignature(boot.Span))
            {
                throw Damaged("the disk has no MBR or GPT partition table");
            }
            return await Mbr.FindAsync(sectors, boot, number, cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            ArrayPool<byte>.Shared.Return(rented);
        }
    }

    public static NbdException Damaged(string what) => new(NbdError.InvalidArgument, what);

    public static NbdException NotThere(string scheme, int number, string why = "there is no such partition")
        => new(NbdError.InvalidArgument, $"{scheme} partition {number} cannot be served: {why}");
}
