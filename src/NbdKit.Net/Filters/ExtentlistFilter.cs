using NbdKit.Filters.Extents;

namespace NbdKit.Filters;

/// <summary>
/// Answers questions about extents from a list (nbdkit-extentlist-filter(1)), over a layer that does not know them or is slow to
/// tell. Holes that are zero are not even read.
/// </summary>
/// <remarks>
/// What the list does not name is a hole that reads as zeroes. Unlike in nbdkit the answers stay right under changes: what is
/// written becomes data, what is zeroed becomes zero, and what is trimmed becomes a hole of unknown content. A list describes one
/// disk, so all exports share it and what has become of it: under whatever name a client opened the disk, it is told of a change
/// that was made under another. For different disks compose a filter with its own list over each. Whether the list is true is the
/// host's affair: bytes that it calls zero read as zeroes where a client takes holes.
/// </remarks>
public sealed class ExtentlistFilter : INbdFilter
{
    private readonly ExtentlistState _state = new(new ExtentMap([]));

    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "extentlist",
        "answer questions about extents from a list",
        [
            new NbdParameter(
                "extentlist", "a file of lines 'offset length [hole,zero]', or of what qemu-img map --output=json prints") { IsRequired = true },
        ],
        parameters => new ExtentlistFilter { Extents = ExtentFile.Read(parameters.Required("extentlist")) });

    /// <summary>The extents, in any order; they may lie beyond the end.</summary>
    /// <value>Copied, and sorted.</value>
    /// <exception cref="ArgumentException">Two extents overlap, or one is negative or ends beyond 2^63-1.</exception>
    public required IReadOnlyList<Extent> Extents
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(Extents));
            Extent[] sorted = [.. value.Where(e => e.Length != 0).OrderBy(e => e.Offset)];
            for (int i = 0; i < sorted.Length; i++)
            {
                if (sorted[i].Offset < 0 || sorted[i].Length < 0 || sorted[i].Length > long.MaxValue - sorted[i].Offset)
                {
                    throw new ArgumentException($"extentlist: {sorted[i]} is not a range of a disk.", nameof(Extents));
                }
                if (i > 0 && sorted[i].Offset < sorted[i - 1].End)
                {
                    throw new ArgumentException($"extentlist: {sorted[i - 1]} and {sorted[i]} overlap.", nameof(Extents));
                }
            }
            field = sorted;
            _state = new ExtentlistState(new ExtentMap(sorted));
        }
    }

    /// <summary>Reads the list from a file, as the command does.</summary>
    /// <param name="path">Lines as nbdkit has them, or what <c>qemu-img map --output=json</c> prints; at most 128 MiB.</param>
    /// <exception cref="ArgumentException">The file cannot be read or is not such a list; the message says where.</exception>
    public static IReadOnlyList<Extent> ReadFile(string path) => ExtentFile.Read(path);

    /// <inheritdoc/>
    public string Name => "extentlist";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new ExtentlistHandle(_state);
    }
}
