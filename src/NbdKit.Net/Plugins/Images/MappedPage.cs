namespace NbdKit.Plugins.Images;

/// <summary>A page of a table that has to be read.</summary>
/// <param name="View">The part of the image.</param>
/// <param name="Position">Any place in the page.</param>
internal readonly record struct MappedPage(MappedView View, long Position)
{
    public ValueTask LoadAsync(CancellationToken cancellationToken) => View.LoadAsync(Position, cancellationToken);
}
