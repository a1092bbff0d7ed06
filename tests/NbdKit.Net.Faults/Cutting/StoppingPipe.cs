using System.IO.Pipelines;

namespace NbdKit.Faults.Cutting;

/// <summary>One end of a connection that sends so many bytes and then stops.</summary>
internal sealed class StoppingPipe : IDuplexPipe
{
    private readonly Stopper _stopper;

    public StoppingPipe(IDuplexPipe inner, long at, CutKind kind, RecordPlace? place = null)
    {
        Input = inner.Input;
        _stopper = new Stopper(inner, at, kind, place);
        Output = PipeWriter.Create(_stopper);
    }

    public PipeReader Input { get; }

    public PipeWriter Output { get; }

    /// <summary>The bytes that were sent, or would have been.</summary>
    public long Position => _stopper.Sent;

    /// <summary>Completes when it has stopped.</summary>
    public Task Stopped => _stopper.Stopped;

    private sealed class Stopper(IDuplexPipe inner, long at, CutKind kind, RecordPlace? place) : Stream
    {
        private readonly TaskCompletionSource _stopped = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private long _at = at;

        public long Sent { get; private set; }

        public Task Stopped => _stopped.Task;

        public override bool CanRead => false;

        public override bool CanWrite => true;

        public override bool CanSeek => false;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => Sent;
            set => throw new NotSupportedException();
        }

        public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            _at = place?.Find(buffer.Span, Sent) ?? _at;
            long here = Math.Clamp(_at - Sent, 0, buffer.Length);
            Sent += buffer.Length;
            if (here > 0)
            {
                await inner.Output.WriteAsync(buffer[..(int)here], cancellationToken);
            }
            if (Sent < _at || !_stopped.TrySetResult() || kind == CutKind.Stall)
            {
                return;
            }
            await inner.Output.CompleteAsync();
            if (kind == CutKind.Reset)
            {
                inner.Input.CancelPendingRead();
                throw new IOException("The connection was reset.");
            }
        }

        public override Task FlushAsync(CancellationToken cancellationToken) => Task.CompletedTask;

        public override void Flush()
        {
        }

        public override int Read(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override void Write(byte[] buffer, int offset, int count) => throw new NotSupportedException();

        public override long Seek(long offset, SeekOrigin origin) => throw new NotSupportedException();

        public override void SetLength(long value) => throw new NotSupportedException();

        protected override void Dispose(bool disposing)
        {
            if (disposing)
            {
                inner.Output.Complete();
            }
            base.Dispose(disposing);
        }
    }
}
