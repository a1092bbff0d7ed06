namespace NbdKit.Plugins;

// What the library calls. A delegate that is missing leaves the behaviour to the interface's own default, which is
// written out here because a class cannot call it.
public sealed partial class DelegatePlugin
{
    ValueTask INbdPlugin.PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => Preconnect?.Invoke(connection, cancellationToken) ?? default;

    ValueTask INbdPlugin.ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        if (ListExports is not null)
        {
            return ListExports(exports, cancellationToken);
        }
        exports.AddDefault();
        return default;
    }

    ValueTask<string?> INbdPlugin.DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => DefaultExport?.Invoke(cancellationToken) ?? new("");

    ValueTask INbdPlugin.GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        // Something else may be returned by Open; what this plugin serves itself is checked again when it is asked.
        if (Open is null)
        {
            Check();
        }
        return default;
    }

    async ValueTask<INbdPluginHandle> INbdPlugin.OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => Open is null ? this : await Open(context, cancellationToken).ConfigureAwait(false) ?? this;

    ValueTask<NbdExportInfo> INbdPluginHandle.GetInfoAsync(CancellationToken cancellationToken)
    {
        Check();
        NbdExportInfo info = Info ?? DerivedInfo(Size!.Value);
        return new(AdjustInfo is null ? info : AdjustInfo(info));
    }

    ValueTask INbdPluginHandle.ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => Read!(buffer, offset, cancellationToken);

    ValueTask INbdPluginHandle.ReadSparseAsync(
        Memory<byte> buffer, long offset, ExtentList extents, CancellationToken cancellationToken)
        => ReadSparse is null
            ? Read!(buffer, offset, cancellationToken)
            : ReadSparse(buffer, offset, extents, cancellationToken);

    ValueTask INbdPluginHandle.WriteAsync(
        ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
        => Write is null
            ? throw Missing(NbdError.PermissionDenied, "write")
            : Write(data, offset, flags, cancellationToken);

    ValueTask INbdPluginHandle.FlushAsync(CancellationToken cancellationToken)
        => Flush is null ? throw Missing(NbdError.InvalidArgument, "flush") : Flush(cancellationToken);

    ValueTask INbdPluginHandle.TrimAsync(
        long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Trim is null
            ? throw Missing(NbdError.InvalidArgument, "trim")
            : Trim(offset, length, flags, cancellationToken);

    ValueTask INbdPluginHandle.ZeroAsync(
        long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => Zero is null
            ? throw Missing(NbdError.NotSupported, "zero")
            : Zero(offset, length, flags, cancellationToken);

    ValueTask INbdPluginHandle.CacheAsync(long offset, long length, CancellationToken cancellationToken)
        => Cache?.Invoke(offset, length, cancellationToken) ?? default;

    ValueTask INbdPluginHandle.ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
        => Extents is null
            ? throw Missing(NbdError.InvalidArgument, "tell its extents")
            : Extents(offset, length, flags, extents, cancellationToken);

    ValueTask INbdPluginHandle.CloseAsync() => Close?.Invoke() ?? default;

    private void Check()
    {
        if (Read is null)
        {
            throw new InvalidOperationException($"The plugin {Name} has no delegate to read with.");
        }
        if (Size is null == Info is null)
        {
            throw new InvalidOperationException($"The plugin {Name} needs either a size or an info.");
        }
    }

    private NbdException Missing(NbdError error, string operation)
        => new(error, $"{Name} has no delegate to {operation}");
}
