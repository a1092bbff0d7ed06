namespace NbdKit.Tests.Testing;

/// <summary>Shows the layer below as a disk that is encrypted: what is below <see cref="NbdKit.Filters.LuksFilter"/> in a pair.</summary>
internal sealed class EncryptingFilter(LuksImage image) : INbdFilter, INbdFilterHandle
{
    private const int Start = LuksImage.HeaderBytes;

    public string Name => "encrypting";

    public async ValueTask<INbdFilterHandle> OpenAsync(NbdContext context, CancellationToken cancellationToken)
    {
        await context.OpenNextAsync(cancellationToken);
        return this;
    }

    public ValueTask<NbdExportInfo> GetInfoAsync(NextContext next, CancellationToken cancellationToken)
    {
        BlockSize below = next.Info.BlockSize;
        return new(next.Info with
        {
            Size = next.Info.Size + Start,
            BlockSize = new BlockSize(
                Math.Max(512, below.Minimum),
                Math.Max(512, below.Preferred),
                below.Maximum is 0 or BlockSize.Unlimited ? BlockSize.Unlimited : below.Maximum & ~511L),
            CanReadSparse = Support.None,
        });
    }

    public async ValueTask ReadAsync(NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (offset < Start)
        {
            image.Header.AsMemory((int)offset, buffer.Length).CopyTo(buffer);
            return;
        }
        await next.ReadAsync(buffer, offset - Start, cancellationToken);
        image.Cipher.Encrypt(buffer.Span, buffer.Span, offset - Start);
    }

    public async ValueTask WriteAsync(
        NextContext next, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        byte[] plain = new byte[data.Length];
        image.Cipher.Decrypt(data.Span, plain, offset - Start);
        await next.WriteAsync(plain, offset - Start, flags, cancellationToken);
    }

    public ValueTask TrimAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => next.TrimAsync(offset - Start, length, flags, cancellationToken);

    public ValueTask ZeroAsync(
        NextContext next, long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => throw new AssertionException("zeroes are not zeroes here");

    public ValueTask CacheAsync(NextContext next, long offset, long length, CancellationToken cancellationToken)
        => next.CacheAsync(offset - Start, length, cancellationToken);

    public async ValueTask ExtentsAsync(
        NextContext next, long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        var below = new ExtentList(offset - Start, extents.End - Start, extents.MetaContext);
        await next.ExtentsAsync(offset - Start, length, flags, below, cancellationToken);
        foreach (Extent extent in below)
        {
            extents.Add(extent.Offset + Start, extent.Length, extent.Status);
        }
    }
}
