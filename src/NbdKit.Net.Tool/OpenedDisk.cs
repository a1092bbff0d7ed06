namespace NbdKit.Tool;

/// <summary>A chain and the contexts that were opened of it.</summary>
internal sealed class OpenedDisk(NbdBackend backend) : IAsyncDisposable
{
    private readonly List<NextContext> _contexts = [];

    /// <summary>The contexts; one at least once it is open.</summary>
    public IReadOnlyList<NextContext> Contexts => _contexts;

    public NbdExportInfo Info => _contexts[0].Info;

    public async ValueTask OpenAsync(
        string exportName, bool readOnly, int connections, LogFactory log, CancellationToken cancellationToken)
    {
        await backend.StartAsync(log, cancellationToken).ConfigureAwait(false);
        _contexts.Add(await backend.OpenAsync(exportName, readOnly, cancellationToken).ConfigureAwait(false));
        // A chain that takes one connection at a time would have the second one wait for the end of the first.
        bool allowsMore = Info.CanMultiConn && backend.ThreadModel != ThreadModel.SerializeConnections;
        for (int i = 1; i < connections && allowsMore; i++)
        {
            _contexts.Add(await backend.OpenAsync(exportName, readOnly, cancellationToken).ConfigureAwait(false));
        }
    }

    public async ValueTask DisposeAsync()
    {
        foreach (NextContext context in _contexts)
        {
            await context.DisposeAsync().ConfigureAwait(false);
        }
        await backend.DisposeAsync().ConfigureAwait(false);
    }
}
