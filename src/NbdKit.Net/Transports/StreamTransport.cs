namespace NbdKit.Transports;

/// <summary>Any bidirectional stream.</summary>
internal sealed class StreamTransport(Stream stream) : Transport
{
    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken)
        => stream.ReadAsync(buffer, cancellationToken);

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        ValueTask writing = stream.WriteAsync(bytes, cancellationToken);
        if (!writing.IsCompletedSuccessfully)
        {
            return FlushAfterAsync(writing, cancellationToken);
        }
        writing.GetAwaiter().GetResult();
        Task flushing = stream.FlushAsync(cancellationToken);
        return flushing.IsCompletedSuccessfully ? default : new ValueTask(flushing);
    }

    public override ValueTask CloseAsync() => stream.DisposeAsync();

    public override void Abort() => stream.Dispose();

    private async ValueTask FlushAfterAsync(ValueTask writing, CancellationToken cancellationToken)
    {
        await writing.ConfigureAwait(false);
        await stream.FlushAsync(cancellationToken).ConfigureAwait(false);
    }
}
