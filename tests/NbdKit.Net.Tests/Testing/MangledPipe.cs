using System.IO.Pipelines;

namespace NbdKit.Tests.Testing;

/// <summary>
/// A client's end whose output is cut at one byte, or has a bit of it turned over and ends behind what is sent together with it.
/// </summary>
internal sealed class MangledPipe : IDuplexPipe
{
    public MangledPipe(IDuplexPipe inner, long at, bool cut)
    {
        Input = inner.Input;
        Output = PipeWriter.Create(new Mangler(inner.Output, at, cut));
    }

    public PipeReader Input { get; }

    public PipeWriter Output { get; }

    private sealed class Mangler(PipeWriter inner, long at, bool cut) : Stream
    {
        private long _position;

        public override bool CanRead => false;

        public override bool CanWrite => true;

        public override bool CanSeek => false;

        public override long Length => throw new NotSupportedException();

        public override long Position
        {
            get => _position;
            set => throw new NotSupportedException();
        }

        public override async ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default)
        {
            byte[] bytes = buffer.ToArray();
            long here = at - _position;
            _position += bytes.Length;
            if (here >= 0 && here < bytes.Length)
            {
                bytes[here] ^= 0x10;
                await inner.WriteAsync(cut ? bytes.AsMemory(0, (int)here) : bytes, cancellationToken);
                await inner.CompleteAsync();
                throw new IOException("The connection was cut.");
            }
            await inner.WriteAsync(bytes, cancellationToken);
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
                inner.Complete();
            }
            base.Dispose(disposing);
        }
    }
}
