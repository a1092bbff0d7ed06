using NbdKit.Protocol;

namespace NbdKit.Client.Pool;

/// <summary>A request to any connection of a pool, so that it can be made again on another one.</summary>
internal readonly record struct PoolRequest(
    CommandType Type,
    long Offset,
    long Length,
    RequestFlags Flags = RequestFlags.None,
    Memory<byte> Buffer = default,
    ReadOnlyMemory<byte> Data = default,
    ExtentList? Extents = null)
{
    /// <summary>Whether carrying it out changes the export.</summary>
    public bool IsChange => Type is CommandType.Write or CommandType.Trim or CommandType.WriteZeroes;

    public ValueTask SendAsync(NbdClient client, CancellationToken cancellationToken)
    {
        switch (Type)
        {
            case CommandType.Read:
                return Extents is null
                    ? client.ReadAsync(Buffer, Offset, cancellationToken)
                    : ReadSparseAsync(client, Extents, cancellationToken);
            case CommandType.Write:
                return client.WriteAsync(Data, Offset, Flags, cancellationToken);
            case CommandType.Trim:
                return client.TrimAsync(Offset, Length, Flags, cancellationToken);
            case CommandType.WriteZeroes:
                return client.ZeroAsync(Offset, Length, Flags, cancellationToken);
            case CommandType.Cache:
                return client.CacheAsync(Offset, Length, cancellationToken);
            case CommandType.Flush:
                return client.FlushAsync(cancellationToken);
            default:
                // What an earlier connection has told is in the list already.
                long from = Extents!.Count == 0 ? Offset : Math.Max(Offset, Extents.Covered);
                return client.ExtentsAsync(from, Offset + Length - from, Flags, Extents, cancellationToken);
        }
    }

    private ValueTask ReadSparseAsync(NbdClient client, ExtentList extents, CancellationToken cancellationToken)
    {
        // Told only once all has arrived: an attempt that fails tells nothing.
        Memory<byte> buffer = Buffer;
        long start = Offset;
        void Add(NbdReadChunk chunk)
        {
            extents.Add(chunk.Offset, chunk.Length, chunk.IsHole ? ExtentStatus.Hole | ExtentStatus.Zero : ExtentStatus.Data);
            if (chunk.IsHole && extents.Covered < chunk.Offset + chunk.Length)
            {
                // The list is full: what it does not tell must be in the buffer.
                buffer.Span.Slice((int)(chunk.Offset - start), chunk.Length).Clear();
            }
        }
        return client.ReadSparseAsync(Buffer, Offset, Add, dontFragment: false, cancellationToken);
    }
}
