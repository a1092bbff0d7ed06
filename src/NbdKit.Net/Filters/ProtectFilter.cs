namespace NbdKit.Filters;

/// <summary>
/// Protects ranges of the layer below (nbdkit-protect-filter(1)): all can be read, and the rest written. Meant for boot
/// sectors, partition tables and headers that a client must not forge.
/// </summary>
/// <remarks>
/// A write that touches a protected range is compared with what is there, and passed on if it does not change it; else it
/// fails with EPERM, before anything was written. Zeroes and trims pass if the protected bytes are zero already; a fast zero
/// that would have to be compared fails with ENOTSUP. A trim is passed on only for what is not protected, as it may leave
/// anything behind. Safe for any number of exports and connections.
/// </remarks>
public sealed class ProtectFilter : INbdFilter
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "protect",
        "protect ranges from being changed",
        [
            new NbdParameter(
                "protect", "START-END, both protected and both optional, or ~START-END for everything else") { IsRepeatable = true },
        ],
        parameters => new ProtectFilter { Ranges = [.. parameters.Texts("protect").Select(Parse)] });

    /// <summary>The ranges that are protected; they may overlap, and lie beyond the end.</summary>
    /// <value>Empty by default: nothing is protected.</value>
    /// <exception cref="ArgumentException">A range is negative or ends before it begins.</exception>
    public IReadOnlyList<ProtectRange> Ranges
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(Ranges));
            foreach (ProtectRange range in value)
            {
                if (range.Start < 0 || range.Last < range.Start)
                {
                    throw new ArgumentException($"{range} is not a range.", nameof(Ranges));
                }
            }
            field = [.. value];
        }
    }
    = [];

    /// <inheritdoc/>
    public string Name => "protect";

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        return new ProtectHandle(this);
    }

    /// <summary>The protected ranges of a disk in order, apart from each other; the end of each does not belong to it.</summary>
    internal (long Start, long End)[] Resolve(long size)
    {
        var ranges = new List<(long Start, long End)>();
        foreach (ProtectRange range in Ranges)
        {
            long start = Math.Min(range.Start, size);
            long end = range.Last is { } last && last < size ? last + 1 : size;
            if (range.IsComplement)
            {
                ranges.Add((0, start));
                ranges.Add((end, size));
            }
            else
            {
                ranges.Add((start, end));
            }
        }
        var merged = new List<(long Start, long End)>();
        foreach ((long start, long end) in ranges.Where(r => r.Start < r.End).Order())
        {
            if (merged.Count > 0 && start <= merged[^1].End)
            {
                merged[^1] = (merged[^1].Start, Math.Max(merged[^1].End, end));
            }
            else
            {
                merged.Add((start, end));
            }
        }
        return [.. merged];
    }

    private static ProtectRange Parse(string text)
    {
        try
        {
            return ProtectRange.Parse(text);
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"protect: protect={text}: {e.Message}", nameof(text), e);
        }
    }
}
