namespace NbdKit.Filters;

/// <summary>A request that <see cref="PolicyFilter.Decide"/> judges, and may change. Its own for the time of the call.</summary>
public struct PolicyRequest
{
    internal PolicyRequest(
        NbdContext context, RequestOperation operation, long offset, long length, RequestFlags flags, ReadOnlyMemory<byte> data)
    {
        Context = context;
        Operation = operation;
        Offset = offset;
        Length = length;
        Flags = flags;
        Data = data;
    }

    /// <summary>Who asks, and of which export: its name, and the client if there is one.</summary>
    public NbdContext Context { get; }

    /// <summary>What is asked for.</summary>
    public RequestOperation Operation { get; }

    /// <summary>
    /// First byte of the range; 0 for a flush. May be changed, but for questions about extents, whose answer has to be about what was
    /// asked: a range that does not fit the layer below then fails with EINVAL.
    /// </summary>
    public long Offset { get; set; }

    /// <summary>Number of bytes of the range; 0 for a flush.</summary>
    public long Length { get; }

    /// <summary>
    /// What else is asked for. May be changed, to what the layer below supports (<see cref="NextContext.Info"/>); else the request
    /// fails with EIO.
    /// </summary>
    public RequestFlags Flags { get; set; }

    /// <summary>
    /// The bytes that a write brings; empty for all else. They must not be changed in place. May be replaced by as many others, which
    /// must stay unchanged until the request has ended.
    /// </summary>
    public ReadOnlyMemory<byte> Data { get; set; }

    /// <summary>
    /// What the client is told about a request that is refused, where the protocol has room for it; null for a stock text.
    /// </summary>
    public string? Reason { get; set; }
}
