namespace NbdKit.Tests.Testing;

/// <summary>Two filters that undo each other, so that a stack with both shows the bytes of the plugin. Never opened itself.</summary>
internal sealed class FilterPair(INbdFilter above, INbdFilter below) : INbdFilter
{
    public string Name => Above.Name;

    public INbdFilter Above { get; } = above;

    public INbdFilter Below { get; } = below;

    public ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
        => throw new NotSupportedException();
}
