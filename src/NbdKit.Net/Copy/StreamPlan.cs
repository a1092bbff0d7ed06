namespace NbdKit.Copy;

/// <summary>A stream as source: it is read in order, into the buffer of whoever has its turn.</summary>
internal sealed class StreamPlan(Stream stream, CopyGeometry geometry) : CopyPlan
{
    private readonly SemaphoreSlim _turn = new(1, 1);
    private long _at;
    private long _sequence;
    private bool _ended;

    public override long? Size { get; } = stream.CanSeek ? Math.Max(0, stream.Length - stream.Position) : null;

    public override async ValueTask<CopyPiece> TakeAsync(CopyBuffer buffer, CancellationToken cancellationToken)
    {
        await _turn.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            if (_ended)
            {
                return default;
            }
            Memory<byte> memory = buffer.Memory[..geometry.Chunk];
            // Pieces are full up to the last one, so that each of them begins where the block sizes allow.
            int count = await stream.ReadAtLeastAsync(memory, memory.Length, throwOnEndOfStream: false, cancellationToken)
                .ConfigureAwait(false);
            _ended = count < memory.Length;
            if (count == 0)
            {
                return default;
            }
            var piece = new CopyPiece(PieceKind.Filled, _at, count, _sequence++, IsCopied: false);
            _at += count;
            return piece;
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            throw new NbdCopyException(NbdCopyFault.Source, _at, $"reading the source failed at offset {_at}: {e.Message}", e);
        }
        finally
        {
            _turn.Release();
        }
    }
}
