namespace NbdKit.Tests.Testing;

/// <summary>
/// Shows the bytes of the layer below as a plain function makes them, which undoes itself: what is below a filter in a pair that does
/// the same. Only reads and writes change them.
/// </summary>
/// <param name="name">The name of the layer.</param>
/// <param name="group">The bytes that belong together: every request is of whole groups.</param>
/// <param name="change">Changes bytes at an offset, in place.</param>
internal sealed class MirroredBytesFilter(string name, int group, Action<byte[], long> change) : INbdFilter, INbdFilterHandle
{
    public string Name => name;

    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken);
        return this;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
        => new(next.Info with { CanReadSparse = next.Info.CanExtents ? Support.Emulate : Support.None });

    public async ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        RequireGroups(offset, buffer.Length);
        byte[] bytes = new byte[buffer.Length];
        await next.ReadAsync(bytes, offset, cancellationToken);
        change(bytes, offset);
        bytes.CopyTo(buffer);
    }

    public async ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        RequireGroups(offset, data.Length);
        byte[] bytes = data.ToArray();
        change(bytes, offset);
        await next.WriteAsync(bytes, offset, flags, cancellationToken);
    }

    private void RequireGroups(long offset, int length)
    {
        if (offset % group != 0 || length % group != 0)
        {
            throw new AssertionException($"{length} bytes at {offset} are not whole groups of {group}");
        }
    }
}
