namespace NbdKit.Benchmarks;

/// <summary>A filter from outside the library that changes nothing: every call passes through it.</summary>
internal sealed class PlainFilter : INbdFilter, INbdFilterHandle
{
    public string Name => "plain";

    public bool KeepsNext => true;

    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken);
        return this;
    }
}
