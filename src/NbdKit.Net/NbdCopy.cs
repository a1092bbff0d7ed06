namespace NbdKit;

/// <summary>
/// Copies disks: from anything that was opened, or a stream, to anything that was opened, a stream, or nowhere. What
/// nbdcopy(1) of libnbd does, for chains; a server elsewhere is a chain whose plugin is an NBD client.
/// </summary>
/// <remarks>
/// <para>
/// What the extents of the source call zeroes is not read, and blocks of zeroes in what is read are found; both become zero
/// requests at the destination, which make holes there unless <see cref="NbdCopyOptions.Allocated"/> is set. Many pieces are
/// copied at a time. Nothing is written that was not read in full: the first error ends the copy with an
/// <see cref="NbdCopyException"/>, and what was not copied by then keeps its old content.
/// </para>
/// <para>
/// With a journal (<see cref="NbdCopyOptions.JournalPath"/>) a copy that failed, was cancelled, or whose process died is
/// taken up again where it is known to be on stable storage.
/// </para>
/// </remarks>
public static class NbdCopy
{
    /// <summary>Copies all of a source to the begin of a destination.</summary>
    /// <param name="source">What to copy; it must not change meanwhile.</param>
    /// <param name="destination">Where to; it must be at least as large.</param>
    /// <param name="options">How, or null for the defaults.</param>
    /// <param name="cancellationToken">
    /// Ends the copy as soon as what is in flight has ended. With a journal the destination is flushed once more then, and
    /// given 10 seconds for that.
    /// </param>
    /// <returns>What was done.</returns>
    /// <exception cref="ArgumentException">The options do not go together with the source and the destination.</exception>
    /// <exception cref="NbdCopyException">The copy failed; which part of the destination was written is unknown.</exception>
    /// <exception cref="OperationCanceledException">It was cancelled.</exception>
    public static Task<NbdCopyResult> CopyAsync(
        NbdCopySource source,
        NbdCopyDestination destination,
        NbdCopyOptions? options = null,
        CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(source);
        ArgumentNullException.ThrowIfNull(destination);
        return new Copy.CopyRun(source, destination, options ?? new NbdCopyOptions()).ExecuteAsync(cancellationToken);
    }
}
