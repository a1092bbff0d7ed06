namespace NbdKit.Filters;

/// <summary>
/// Makes a chain take fewer calls at once than its layers could (nbdkit-noparallel-filter(1)), for clients or plugins
/// that turn out not to be safe, and for tests.
/// </summary>
/// <remarks>It only tightens: over a layer that is tighter already it changes nothing.</remarks>
public sealed class NoparallelFilter : INbdFilter, INbdFilterHandle
{
    /// <summary>The filter in the catalogue.</summary>
    /// <remarks><c>serialize=retirement</c> is not known to nbdkit.</remarks>
    public static NbdFilterEntry Entry { get; } = new(
        "noparallel",
        "serialize requests or connections",
        [
            new NbdParameter(
                "serialize",
                "requests (one at a time on each connection, the default), all-requests (over all connections), "
                + "connections (one client at a time) or retirement (in parallel, but answered in order)"),
        ],
        parameters => new NoparallelFilter
        {
            Serialize = parameters.OneOf(
                "serialize",
                ("requests", ThreadModel.SerializeRequests),
                ("all-requests", ThreadModel.SerializeAllRequests),
                ("connections", ThreadModel.SerializeConnections),
                ("retirement", ThreadModel.SerializeRetirement)) ?? ThreadModel.SerializeRequests,
        });

    /// <summary>The most that the chain takes at once.</summary>
    /// <value>
    /// <see cref="ThreadModel.SerializeRequests"/> by default; anything but <see cref="ThreadModel.Parallel"/>.
    /// </value>
    /// <exception cref="ArgumentOutOfRangeException">The value is parallel, or not a thread model.</exception>
    public ThreadModel Serialize
    {
        get;
        init
        {
            if (value is < ThreadModel.SerializeConnections or >= ThreadModel.Parallel)
            {
                throw new ArgumentOutOfRangeException(
                    nameof(Serialize), value, "Serialize requests, all requests, connections or retirement.");
            }
            field = value;
        }
    } = ThreadModel.SerializeRequests;

    /// <inheritdoc/>
    public string Name => "noparallel";

    /// <inheritdoc/>
    public ThreadModel GetThreadModel(ThreadModel next) => Serialize < next ? Serialize : next;

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    bool INbdFilterHandle.KeepsNext => true;
}
