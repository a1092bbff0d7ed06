using NbdKit.Filters.Ahead;

namespace NbdKit.Filters;

/// <summary>
/// Reads ahead of clients that read sequentially. Corresponds to nbdkit-readahead-filter(1).
/// </summary>
/// <remarks>
/// <para>
/// Each connection is watched on its own. From its second read in sequence on, what comes next is read in the background
/// into memory: first 32 KiB, then twice as much with each read, up to <see cref="MaxWindow"/>; reads elsewhere make it less
/// again. A read that meets what is being read already waits for that; all others go below at once. What cannot be read
/// ahead is forgotten: the client's own read gets the error. A connection takes at most the window and 1 MiB of memory.
/// </para>
/// <para>
/// nbdkit's filter sends prefetch requests, which only some plugins take. This one needs nothing but reads. Where the layer
/// below takes one request at a time on each context, it opens a context of its own for them; but not if that could show
/// old data, which is if the disk is written to and the layer below does not promise that its connections see each other's
/// writes. Then, and where one request at a time is all that the layers below take together, nothing is read ahead, because
/// it would keep the clients' reads waiting.
/// </para>
/// <para>Writes through this filter, of all its connections, are seen at once. Writes that do not come through it are not.</para>
/// </remarks>
public sealed partial class ReadaheadFilter : INbdFilter
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, ReadaheadGroup> _groups = [];

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "readahead",
        "reads ahead of sequential readers",
        [new NbdParameter("readahead-window", "how far to read ahead at most, from 32K to 1G (default 4M)")],
        parameters => new ReadaheadFilter { MaxWindow = parameters.Size("readahead-window") ?? 4 << 20 });

    /// <summary>How many bytes to read ahead at most, from 32 KiB to 1 GiB. 4 MiB by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is out of range.</exception>
    public long MaxWindow
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, ReadaheadStream.SmallestWindow);
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, 1 << 30);
            field = value;
        }
    } = 4 << 20;

    /// <inheritdoc/>
    public string Name => "readahead";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new ReadaheadHandle(this, context);
    }

    // Clients with TLS and without share a group: it holds no data, and they may write to the same disk.
    private ReadaheadGroup Join(string exportName)
    {
        lock (_lock)
        {
            if (!_groups.TryGetValue(exportName, out ReadaheadGroup? group))
            {
                _groups.Add(exportName, group = new ReadaheadGroup());
            }
            group.Users++;
            return group;
        }
    }

    private void Leave(string exportName, ReadaheadGroup group)
    {
        lock (_lock)
        {
            if (--group.Users == 0)
            {
                _groups.Remove(exportName);
            }
        }
    }
}
