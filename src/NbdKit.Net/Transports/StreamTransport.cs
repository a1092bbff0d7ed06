using System.Net.Security;

namespace NbdKit.Transports;

/// <summary>Any bidirectional stream.</summary>
internal sealed class StreamTransport(Stream stream) : Transport
{
    // How long a client of a TLS stream gets to take the last record.
    private static readonly TimeSpan Linger = TimeSpan.FromSeconds(1);

    public override SslStream? Tls => stream as SslStream;

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        => stream.ReadAsync(buffer, cancellationToken);

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        if (bytes.Length > PieceBytes)
        {
            return SendPiecesAsync(bytes, cancellationToken);
        }
        ValueTask writing = stream.WriteAsync(bytes, cancellationToken);
        if (!writing.IsCompletedSuccessfully)
        {
            return FlushAfterAsync(writing, cancellationToken);
        }
        writing.GetAwaiter().GetResult();
        Task flushing = stream.FlushAsync(cancellationToken);
        return flushing.IsCompletedSuccessfully ? default : new ValueTask(flushing);
    }

    public override async ValueTask CloseAsync()
    {
        try
        {
            if (Tls is { IsAuthenticated: true } tls)
            {
                // Disposing of it would not tell the client that this is the end.
                await tls.ShutdownAsync().WaitAsync(Linger, CancellationToken.None).ConfigureAwait(false);
            }
        }
        catch (TimeoutException)
        {
            // The client takes nothing any more.
        }
        finally
        {
            await stream.DisposeAsync().ConfigureAwait(false);
        }
    }

    public override void Abort() => stream.Dispose();

    private async ValueTask SendPiecesAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        while (bytes.Length > 0)
        {
            ReadOnlyMemory<byte> piece = bytes[..Math.Min(bytes.Length, PieceBytes)];
            await stream.WriteAsync(piece, cancellationToken).ConfigureAwait(false);
            bytes = bytes[piece.Length..];
            Progressed?.Invoke();
        }
        await stream.FlushAsync(cancellationToken).ConfigureAwait(false);
    }

    private async ValueTask FlushAfterAsync(ValueTask writing, CancellationToken cancellationToken)
    {
        await writing.ConfigureAwait(false);
        // Pieces of something larger come this way too.
        Progressed?.Invoke();
        await stream.FlushAsync(cancellationToken).ConfigureAwait(false);
    }
}
