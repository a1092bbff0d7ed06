namespace NbdKit.Transports;

/// <summary>A transport as the stream that a client's TLS is layered on. Asynchronous only.</summary>
/// <remarks>
/// The first byte that comes must be that of a TLS record. Plain text in its place would fail in the end as well, but some of it
/// looks like the begin of a long record of SSL 2, of which the rest never comes.
/// </remarks>
internal sealed class TlsBaseStream(Transport transport) : AsyncStream
{
    private const byte AlertRecord = 21;
    private const byte HandshakeRecord = 22;

    private bool _begun;

    public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
    {
        while (true)
        {
            int received = await transport.ReceiveAsync(buffer, cancellationToken).ConfigureAwait(false);
            if (received >= 0)
            {
                if (!_begun && received > 0 && buffer.Span[0] is not (AlertRecord or HandshakeRecord))
                {
                    throw new IOException("What the server sent is not TLS.");
                }
                _begun |= received > 0;
                return received;
            }
            await transport.WaitForDataAsync(cancellationToken).ConfigureAwait(false);
        }
    }

    public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        => transport.SendAsync(buffer, cancellationToken);
}
