using NbdKit.Transports;

namespace NbdKit.Benchmarks;

/// <summary>A client that takes everything at once and sends nothing.</summary>
internal sealed class SinkTransport : Transport
{
    public long Sent { get; private set; }

    public override ValueTask<int> ReceiveAsync(Memory<byte> buffer, CancellationToken cancellationToken) => new(0);

    public override ValueTask SendAsync(ReadOnlyMemory<byte> bytes, CancellationToken cancellationToken)
    {
        Sent += bytes.Length;
        return default;
    }

    public override ValueTask CloseAsync() => default;

    public override void Abort()
    {
    }
}
