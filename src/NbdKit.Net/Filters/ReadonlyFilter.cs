namespace NbdKit.Filters;

/// <summary>
/// Makes exports read-only: for good, while a file exists, or while a switch is on (nbdkit-readonly-filter(1)).
/// </summary>
/// <remarks>
/// <para>
/// Without <see cref="ReadonlyFile"/> and <see cref="IsSwitchable"/> the layers below are opened read-only, and clients are told
/// that they cannot write. With one of them, clients are told what the layers below can do; whether the file exists, or the
/// switch is on, is looked up for each write, trim and zero, which fail with EPERM while it is so. Flushes always pass: they
/// concern writes that were accepted before.
/// </para>
/// <para>Unlike nbdkit 1.38 to 1.48, the permanent form does not open the layers below for writing.</para>
/// </remarks>
public sealed class ReadonlyFilter : INbdFilter, INbdFilterHandle
{
    /// <summary>The filter in the catalogue.</summary>
    public static NbdFilterEntry Entry { get; } = new(
        "readonly",
        "make exports read-only, always or while a file exists",
        [new NbdParameter("readonly-file", "refuse writes only while this file exists (default: always)")],
        parameters => new ReadonlyFilter { ReadonlyFile = parameters.Text("readonly-file") });

    /// <summary>The file whose existence makes the export read-only, or null to make it read-only always.</summary>
    /// <value>Null by default. A relative path is resolved when it is set.</value>
    /// <exception cref="ArgumentException">The path is empty or not a path.</exception>
    public string? ReadonlyFile
    {
        get;
        init => field = value is null ? null : Path.GetFullPath(value);
    }

    /// <summary>
    /// Whether <see cref="ReadOnly"/> is heeded, for a host that makes exports read-only for a time. False by default.
    /// </summary>
    public bool IsSwitchable { get; init; }

    /// <summary>
    /// Whether writes are refused now. It may be changed at any time and from any thread, also while the filter serves, and holds
    /// for requests that begin afterwards. Without <see cref="IsSwitchable"/> it means nothing.
    /// </summary>
    /// <value>True by default.</value>
    public bool ReadOnly { get => Volatile.Read(ref field); set => Volatile.Write(ref field, value); } = true;

    /// <inheritdoc/>
    public string Name => "readonly";

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => next.PreconnectAsync(connection, readOnly || IsPermanent, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ListExportsAsync(
        NbdBackend next,
        ExportList exports,
        bool readOnly,
        NbdConnection? connection,
        CancellationToken cancellationToken)
        => next.ListExportsAsync(exports, readOnly || IsPermanent, connection, cancellationToken);

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => next.DefaultExportAsync(readOnly || IsPermanent, connection, cancellationToken);

    /// <inheritdoc/>
    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(context.ReadOnly || IsPermanent, context.ExportName, cancellationToken)
            .ConfigureAwait(false);
        return this;
    }

    /// <inheritdoc/>
    public ValueTask WriteAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        RequireWritable();
        return next.WriteAsync(data, offset, flags, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        RequireWritable();
        return next.TrimAsync(offset, length, flags, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        RequireWritable();
        return next.ZeroAsync(offset, length, flags, cancellationToken);
    }

    private bool IsPermanent => ReadonlyFile is null && !IsSwitchable;

    private void RequireWritable()
    {
        // The permanent form does not get here: it is told by its next layer that it cannot write.
        if (IsSwitchable && ReadOnly)
        {
            throw new NbdException(NbdError.PermissionDenied, "the export is read-only for the moment");
        }
        if (Path.Exists(ReadonlyFile))
        {
            throw new NbdException(NbdError.PermissionDenied, $"the export is read-only while {ReadonlyFile} exists");
        }
    }

    bool INbdFilterHandle.KeepsNext => true;
}
