namespace NbdKit.Filters;

/// <summary>
/// Changes which exports clients are shown, may open, and get by default, and how these are described
/// (nbdkit-exportname-filter(1)).
/// </summary>
/// <remarks>
/// With <see cref="Strictness"/> the default export may be opened only if <see cref="Exports"/> has an empty name. The list that
/// is shown and the names that may be opened are independent of each other. Safe for any number of exports and connections.
/// </remarks>
public sealed partial class ExportnameFilter : INbdFilter
{
    /// <summary>The export that "" stands for, or null or "" to ask the layer below.</summary>
    /// <value>Null by default.</value>
    public string? DefaultExport { get; init; }

    /// <summary>Which exports are listed.</summary>
    /// <value><see cref="ExportnameListMode.Keep"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not a mode.</exception>
    public ExportnameListMode ListMode
    {
        get;
        init
        {
            if (value is < ExportnameListMode.Keep or > ExportnameListMode.Explicit)
            {
                throw new ArgumentOutOfRangeException(nameof(ListMode), value, "Not a list mode.");
            }
            field = value;
        }
    }

    /// <summary>Which exports may be opened; the others fail with EINVAL.</summary>
    /// <value><see cref="ExportnameStrictness.None"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is none of them.</exception>
    public ExportnameStrictness Strictness
    {
        get;
        init
        {
            if (value is < ExportnameStrictness.None or > ExportnameStrictness.Listed)
            {
                throw new ArgumentOutOfRangeException(nameof(Strictness), value, "Not a strictness.");
            }
            field = value;
        }
    }

    /// <summary>The names for <see cref="ExportnameListMode.Explicit"/> and <see cref="Strictness"/>; copied.</summary>
    /// <value>Empty by default.</value>
    /// <exception cref="ArgumentException">A name breaks the protocol's rules for strings.</exception>
    public IReadOnlyList<string> Exports
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(Exports));
            foreach (string name in value)
            {
                Protocol.WireString.Check(name, "export name");
            }
            field = [.. value];
        }
    }
    = [];

    /// <summary>
    /// Makes the description of an export from its name and the description of the layer below; null for none. Called
    /// for each export that is listed and each one that is opened, also by several threads at once.
    /// </summary>
    /// <value>Null by default: descriptions are those of the layer below.</value>
    public Func<string, string?, CancellationToken, ValueTask<string?>>? Describe { get; init; }

    /// <inheritdoc/>
    public string Name => "exportname";

    /// <inheritdoc/>
    public async ValueTask ListExportsAsync(
        NbdBackend next,
        ExportList exports,
        bool readOnly,
        NbdConnection? connection,
        CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(next);
        ArgumentNullException.ThrowIfNull(exports);
        var below = new ExportList();
        switch (ListMode)
        {
            case ExportnameListMode.Keep when Describe is null:
                await next.ListExportsAsync(exports, readOnly, connection, cancellationToken).ConfigureAwait(false);
                return;
            case ExportnameListMode.Keep:
                await next.ListExportsAsync(below, readOnly, connection, cancellationToken).ConfigureAwait(false);
                break;
            case ExportnameListMode.Error:
                throw new NbdException(NbdError.PermissionDenied, "the exports are not listed");
            case ExportnameListMode.DefaultOnly:
                if (await DefaultNameAsync(next, readOnly, connection, cancellationToken).ConfigureAwait(false) is { } name)
                {
                    below.Add(name);
                }
                break;
            case ExportnameListMode.Explicit:
                foreach (string given in Exports)
                {
                    below.Add(given);
                }
                break;
        }
        foreach (NbdExport export in below)
        {
            exports.Add(
                export.Name,
                Describe is null
                    ? export.Description
                    : await Describe(export.Name, export.Description, cancellationToken).ConfigureAwait(false));
        }
    }

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => Strictness != ExportnameStrictness.None && !Exports.Contains("")
            ? new((string?)null)
            : DefaultNameAsync(next, readOnly, connection, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        string name = context.ExportName;
        if (Strictness != ExportnameStrictness.None && !await IsAllowedAsync(context, cancellationToken).ConfigureAwait(false))
        {
            throw new NbdException(NbdError.InvalidArgument, "there is no export of this name");
        }
        // A shared context is opened by others with "" as it is.
        string below = name.Length == 0 && DefaultExport is { Length: > 0 } given ? given : name;
        await context.OpenNextAsync(context.ReadOnly, below, cancellationToken).ConfigureAwait(false);
        return new ExportnameHandle(this, name);
    }

    private ValueTask<string?> DefaultNameAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => DefaultExport is { Length: > 0 } name
            ? new(name)
            : next.DefaultExportAsync(readOnly, connection, cancellationToken);

    private async ValueTask<bool> IsAllowedAsync(NbdContext context, CancellationToken cancellationToken)
    {
        if (Exports.Contains(context.ExportName))
        {
            return true;
        }
        NbdBackend next = context.Backend.Next!;
        if (Exports.Contains("")
            && await DefaultNameAsync(next, context.ReadOnly, context.Connection, cancellationToken).ConfigureAwait(false)
                == context.ExportName)
        {
            return true;
        }
        if (Strictness != ExportnameStrictness.Listed)
        {
            return false;
        }
        var below = new ExportList();
        await next.ListExportsAsync(below, context.ReadOnly, context.Connection, cancellationToken).ConfigureAwait(false);
        return below.Any(export => export.Name == context.ExportName);
    }
}
