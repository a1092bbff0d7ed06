namespace NbdKit.Filters;

/// <summary>Makes exports read-only, for good or while a file exists (nbdkit-readonly-filter(1)).</summary>
/// <remarks>
/// <para>
/// Without <see cref="ReadonlyFile"/> the layers below are opened read-only, and clients are told that they cannot
/// write. With it, clients are told what the layers below can do; whether the file exists is looked up for each write,
/// trim and zero, which fail with EPERM while it does. Flushes always pass: they concern writes that were accepted
/// before.
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

    private bool IsPermanent => ReadonlyFile is null;

    private void RequireWritable()
    {
        // Only the form with a file gets here: the other one is told by its next layer that it cannot write.
        if (Path.Exists(ReadonlyFile))
        {
            throw new NbdException(NbdError.PermissionDenied, $"the export is read-only while {ReadonlyFile} exists");
        }
    }
}
