namespace NbdKit.Tests.Testing;

/// <summary>A filter that is made when the rest of its stack is, and what the plugin holds is known. Never opened itself.</summary>
internal sealed class LateFilter(string name, Func<INbdFilter> make) : INbdFilter
{
    public string Name => name;

    public INbdFilter Make() => make();

    public ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
        => throw new NotSupportedException();
}
