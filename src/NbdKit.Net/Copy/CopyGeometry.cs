namespace NbdKit.Copy;

/// <summary>How a copy is cut, so that both sides get only requests that their block sizes allow.</summary>
internal sealed class CopyGeometry
{
    private const int LargestSlice = 32 << 20;

    public CopyGeometry(BlockSize source, BlockSize destination, NbdCopyOptions options)
    {
        Alignment = (int)Math.Max(1, Math.Max(source.Minimum, destination.Minimum));
        SourceSlice = Slice(source);
        DestinationSlice = Slice(destination);
        long preferred = Math.Max(options.RequestSize, Math.Max(source.Preferred, destination.Preferred));
        long most = Math.Min(preferred, Math.Min(SourceSlice, DestinationSlice));
        // Where one side's largest request is smaller than the other's smallest, a piece takes several requests.
        Chunk = (int)Math.Max(Alignment, most - (most % Alignment));
        Workers = (int)Math.Clamp(options.MaxBytesInFlight / Chunk, 1, options.MaxRequestsInFlight);
    }

    /// <summary>All pieces begin at a multiple of this, and end at one or with the source: a power of two.</summary>
    public int Alignment { get; }

    /// <summary>The largest piece that is read.</summary>
    public int Chunk { get; }

    /// <summary>The largest read of the source.</summary>
    public int SourceSlice { get; }

    /// <summary>The largest write to the destination.</summary>
    public int DestinationSlice { get; }

    /// <summary>How many pieces are in flight.</summary>
    public int Workers { get; }

    private static int Slice(BlockSize blocks)
        => blocks.IsKnown ? (int)(Math.Min(blocks.Maximum, LargestSlice) & -blocks.Minimum) : LargestSlice;
}
