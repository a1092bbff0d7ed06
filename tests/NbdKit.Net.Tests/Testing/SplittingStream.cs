using NbdKit.Transports;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A stream that passes on what is written in random pieces with a pause after each, and hands out what is read in random
/// pieces. Two writers at a time would mix their bytes up, and are caught besides.
/// </summary>
internal sealed class SplittingStream(Stream inner, Random random) : AsyncStream
{
    private int _writers;

    public override ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        => inner.ReadAsync(buffer[..Piece(buffer.Length)], cancellationToken);

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        if (Interlocked.Increment(ref _writers) != 1)
        {
            throw new InvalidOperationException("Two writers at a time.");
        }
        while (buffer.Length > 0)
        {
            int piece = Piece(buffer.Length);
            await inner.WriteAsync(buffer[..piece], cancellationToken);
            await Task.Yield();
            buffer = buffer[piece..];
        }
        Interlocked.Decrement(ref _writers);
    }

    public override Task FlushAsync(CancellationToken cancellationToken) => inner.FlushAsync(cancellationToken);

    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            inner.Dispose();
        }
        base.Dispose(disposing);
    }

    private int Piece(int length)
    {
        lock (random)
        {
            return length == 0 ? 0 : random.Next(4) == 0 ? random.Next(1, length + 1) : random.Next(1, Math.Min(length, 5000) + 1);
        }
    }
}
