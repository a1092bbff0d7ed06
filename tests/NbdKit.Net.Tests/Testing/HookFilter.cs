namespace NbdKit.Tests.Testing;

/// <summary>A filter that is made of functions; what is left out changes nothing.</summary>
internal sealed class HookFilter(Hooks hooks, string name = "hook") : INbdFilter, IDisposable
{
    private readonly Lock _lock = new();
    private readonly List<NbdContext> _contexts = [];

    public string Name => name;

    /// <summary>The contexts of this filter in the order of their opens, closed ones included.</summary>
    public IReadOnlyList<NbdContext> Contexts
    {
        get
        {
            lock (_lock)
            {
                return [.. _contexts];
            }
        }
    }

    /// <summary>The only context of this filter, or the first.</summary>
    public NbdContext Context => Contexts[0];

    public ThreadModel GetThreadModel(ThreadModel next) => hooks.Model?.Invoke(next) ?? next;

    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => hooks.Ready?.Invoke(model, cancellationToken) ?? default;

    public ValueTask StartAsync(NbdBackend backend, CancellationToken cancellationToken)
        => hooks.Start?.Invoke(backend, cancellationToken) ?? default;

    public ValueTask PreconnectAsync(
        NbdBackend next, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => hooks.Preconnect?.Invoke(next, connection, cancellationToken)
            ?? next.PreconnectAsync(connection, readOnly, cancellationToken);

    public ValueTask ListExportsAsync(
        NbdBackend next, ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => hooks.List?.Invoke(next, exports, cancellationToken)
            ?? next.ListExportsAsync(exports, readOnly, connection, cancellationToken);

    public ValueTask<string?> DefaultExportAsync(
        NbdBackend next, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => hooks.Default?.Invoke(next, cancellationToken) ?? next.DefaultExportAsync(readOnly, connection, cancellationToken);

    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        lock (_lock)
        {
            _contexts.Add(context);
        }
        await (hooks.Open?.Invoke(context, cancellationToken) ?? context.OpenNextAsync(cancellationToken));
        return new Handle(hooks, context);
    }

    public ValueTask CleanupAsync(NbdBackend backend, CancellationToken cancellationToken)
        => hooks.Cleanup?.Invoke(backend, cancellationToken) ?? default;

    public void Dispose() => hooks.Dispose?.Invoke();

    private sealed class Handle(Hooks hooks, NbdContext context) : INbdFilterHandle
    {
        public ValueTask PrepareAsync(NextContext next, CancellationToken cancellationToken)
            => hooks.Prepare?.Invoke(context, next, cancellationToken) ?? default;

        public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
            => hooks.Info?.Invoke(context, next, cancellationToken) ?? new(next.Info);

        public ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
            => hooks.Read?.Invoke(context, next, buffer, offset, cancellationToken)
                ?? next.ReadAsync(buffer, offset, cancellationToken);

        public ValueTask FinalizeAsync(NextContext next, CancellationToken cancellationToken)
            => hooks.Finalize?.Invoke(context, next, cancellationToken) ?? default;

        public ValueTask CloseAsync() => hooks.Close?.Invoke(context) ?? default;
    }
}
