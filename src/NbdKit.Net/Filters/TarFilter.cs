using NbdKit.Filters.Tar;

namespace NbdKit.Filters;

/// <summary>
/// Serves one file inside a tar archive as if it were the whole export, without unpacking it (nbdkit-tar-filter(1)).
/// </summary>
/// <remarks>
/// <para>
/// The headers of the archive are read each time an export is opened, from its start to the first file of that name;
/// different exports may hold different archives. Archives of all formats of GNU tar and pax are understood, and OVA files,
/// which are tar archives. Writes change the file in place; no header of tar covers the content, but an OVA may have a
/// manifest that does. No program is run: the <c>tar</c> parameter of nbdkit does not exist.
/// </para>
/// <para>
/// Opening the export fails with EINVAL if there is no such file, if the archive is damaged or compressed, if the file was
/// stored as a sparse one, is a link or a directory, does not end inside the archive, or is not made of whole blocks of a
/// layer that has a minimum block size; or if a million headers come before it.
/// </para>
/// </remarks>
public sealed class TarFilter : INbdFilter
{
    /// <summary>The filter in the catalogue, as <c>tar</c>.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "tar",
        "serve a file inside a tar archive",
        [
            new NbdParameter("tar-entry", "path of the file in the archive, as tar -t prints it") { IsRequired = true },
            new NbdParameter("tar-limit", "look for the file only in this many bytes from the start (default: in all)"),
        ],
        parameters => new TarFilter
        {
            TarEntry = parameters.Required("tar-entry"),
            Limit = parameters.Size("tar-limit") is { } limit and > 0 ? limit : null,
        });

    /// <summary>The path of the file in the archive, exactly as the archive has it: <c>./disk</c> is not <c>disk</c>.</summary>
    /// <exception cref="ArgumentException">The path is empty, or has a NUL character.</exception>
    public required string TarEntry
    {
        get;
        init
        {
            ArgumentException.ThrowIfNullOrEmpty(value, nameof(TarEntry));
            if (value.Contains('\0', StringComparison.Ordinal))
            {
                throw new ArgumentException("The path of the file must not have a NUL character.", nameof(TarEntry));
            }
            field = value;
        }
    }

    /// <summary>
    /// The number of bytes from the start of the archive in which the file must begin, or null for the whole archive. A
    /// bound on the time that opening takes.
    /// </summary>
    /// <value>At least 1; null by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long? Limit
    {
        get;
        init
        {
            if (value is { } limit)
            {
                ArgumentOutOfRangeException.ThrowIfLessThan(limit, 1, nameof(Limit));
            }
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "tar";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new TarHandle(TarEntry, Limit);
    }
}
