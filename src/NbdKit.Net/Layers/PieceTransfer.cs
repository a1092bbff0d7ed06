namespace NbdKit.Layers;

/// <summary>Reads and writes of any length, in pieces that the layer below takes.</summary>
internal static class PieceTransfer
{
    public static ValueTask ReadInPiecesAsync(
        this NextContext next, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        int most = Largest(next);
        return buffer.Length <= most
            ? next.ReadAsync(buffer, offset, cancellationToken)
            : ReadPiecesAsync(next, buffer, offset, most, cancellationToken);
    }

    public static ValueTask WriteInPiecesAsync(
        this NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        CancellationToken cancellationToken)
    {
        int most = Largest(next);
        return data.Length <= most
            ? next.WriteAsync(data, offset, flags, cancellationToken)
            : WritePiecesAsync(next, data, offset, flags, most, cancellationToken);
    }

    private static int Largest(NextContext next)
        => next.Info.BlockSize.Maximum is > 0 and < int.MaxValue and var maximum ? (int)maximum : int.MaxValue;

    private static async ValueTask ReadPiecesAsync(
        NextContext next, Memory<byte> buffer, long offset, int most, CancellationToken cancellationToken)
    {
        while (buffer.Length > 0)
        {
            int count = Math.Min(buffer.Length, most);
            await next.ReadAsync(buffer[..count], offset, cancellationToken).ConfigureAwait(false);
            buffer = buffer[count..];
            offset += count;
        }
    }

    private static async ValueTask WritePiecesAsync(
        NextContext next,
        ReadOnlyMemory<byte> data,
        long offset,
        RequestFlags flags,
        int most,
        CancellationToken cancellationToken)
    {
        while (data.Length > 0)
        {
            int count = Math.Min(data.Length, most);
            await next.WriteAsync(data[..count], offset, flags, cancellationToken).ConfigureAwait(false);
            data = data[count..];
            offset += count;
        }
    }
}
