using NbdKit.Layers;

namespace NbdKit.Plugins.Images;

/// <summary>The chains that the parts of one disk are in, opened for one context.</summary>
internal sealed class MappedSources(NbdBackend holder, NbdConnection? connection)
{
    private readonly List<InnerContext> _contexts = [];

    private readonly MappedPages _pages = new();

    /// <summary>What was opened, in order.</summary>
    public IReadOnlyList<InnerContext> Contexts => _contexts;

    /// <summary>Opens the default export of a chain, read-only.</summary>
    public async ValueTask<MappedView> OpenAsync(NbdBackend chain, CancellationToken cancellationToken)
    {
        InnerContext context = await InnerContext.OpenAsync(
            chain, holder, readOnly: true, exportName: "", connection, cancellationToken).ConfigureAwait(false);
        return Add(context, 0, context.Info.Size);
    }

    /// <summary>Takes a chain that was opened, and a range of it.</summary>
    public MappedView Add(InnerContext context, long start, long size)
    {
        _contexts.Add(context);
        return new MappedView(context.Next, start, size, _pages, _contexts.Count);
    }

    public ValueTask CloseAsync() => InnerContext.CloseAllAsync(_contexts);
}
