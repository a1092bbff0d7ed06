namespace NbdKit.Filters;

/// <summary>What <see cref="StatsFilter"/> has counted up to a moment.</summary>
/// <remarks>Taken while requests run, its numbers may be apart by those that ended meanwhile.</remarks>
public sealed class StatsSnapshot
{
    internal StatsSnapshot(TimeSpan elapsed, IReadOnlyList<OperationStats> operations)
    {
        Elapsed = elapsed;
        Operations = operations;
    }

    /// <summary>The time since the chain started.</summary>
    public TimeSpan Elapsed { get; }

    /// <summary>The kinds of requests, in the order of <see cref="RequestOperation"/>.</summary>
    public IReadOnlyList<OperationStats> Operations { get; }

    /// <summary>One kind of request.</summary>
    /// <param name="operation">Which.</param>
    public OperationStats this[RequestOperation operation] => Operations[(int)operation];

    /// <summary>The requests of all kinds that succeeded.</summary>
    public long Requests => Operations.Sum(operation => operation.Requests);

    /// <summary>The bytes that were read, written, trimmed and zeroed.</summary>
    public long Bytes
        => this[RequestOperation.Read].Bytes + this[RequestOperation.Write].Bytes
            + this[RequestOperation.Trim].Bytes + this[RequestOperation.Zero].Bytes;

    /// <summary><see cref="Bytes"/> a second, since the chain started.</summary>
    public double BytesPerSecond => Elapsed > TimeSpan.Zero ? Bytes / Elapsed.TotalSeconds : 0;
}
