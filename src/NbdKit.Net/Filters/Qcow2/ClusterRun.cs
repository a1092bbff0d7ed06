namespace NbdKit.Filters.Qcow2;

/// <summary>A range of the disk that is all of one kind, and all in one place.</summary>
/// <param name="Kind">What it is.</param>
/// <param name="Length">Its length in bytes.</param>
/// <param name="Place">Of data, its first byte in the file; of a compressed cluster, what its entry says of it.</param>
internal readonly record struct ClusterRun(ClusterKind Kind, long Length, long Place)
{
    /// <summary>Whether what follows it in the disk continues it.</summary>
    public bool IsContinuedBy(ClusterRun next)
        => next.Kind == Kind && Kind != ClusterKind.Compressed && (Kind != ClusterKind.Data || next.Place == Place + Length);
}
