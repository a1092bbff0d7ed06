using System.Net.Sockets;

namespace NbdKit.Faults.Cutting;

/// <summary>One end of a TCP connection, which sends so many bytes and then stops.</summary>
/// <param name="socket">The socket, which is closed with this.</param>
/// <param name="at">The bytes that it sends.</param>
/// <param name="kind">How it stops.</param>
/// <param name="place">Where it stops, if that is known only when it comes there.</param>
internal sealed class StoppingStream(Socket socket, long at, CutKind kind, RecordPlace? place = null) : NetworkStream(socket, ownsSocket: true)
{
    private readonly TaskCompletionSource _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private long _at = at;

    /// <summary>The bytes that were sent, or would have been.</summary>
    public long Sent { get; private set; }

    /// <summary>Completes when it has stopped.</summary>
    public Task Stopped => _stopped.Task;

    public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
    {
        _at = place?.Find(buffer.Span, Sent) ?? _at;
        int here = (int)Math.Clamp(_at - Sent, 0, buffer.Length);
        Sent += buffer.Length;
        if (here > 0)
        {
            await base.WriteAsync(buffer[..here], cancellationToken);
        }
        if (Sent < _at || !_stopped.TrySetResult() || kind == CutKind.Stall)
        {
            return;
        }
        if (kind == CutKind.Finish)
        {
            Socket.Shutdown(SocketShutdown.Send);
            return;
        }
        Socket.LingerState = new LingerOption(true, 0);
        Socket.Close();
        throw new IOException("The connection was reset.");
    }

    public override Task WriteAsync(byte[] buffer, int offset, int count, CancellationToken cancellationToken)
        => WriteAsync(buffer.AsMemory(offset, count), cancellationToken).AsTask();

    public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();
}
