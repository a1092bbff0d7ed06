using System.IO.Pipelines;

namespace NbdKit.Faults.Upgrading;

/// <summary>The output of a server, of which every byte is kept.</summary>
internal sealed class TapWriter(PipeWriter inner) : PipeWriter
{
    private readonly MemoryStream _written = new();
    private Memory<byte> _room;
    private int _mark = -1;

    /// <summary>How much was written since TLS began.</summary>
    public int Since
    {
        get
        {
            lock (_written)
            {
                return _mark < 0 ? 0 : (int)_written.Length - _mark;
            }
        }
    }

    /// <summary>From here on it has to be TLS.</summary>
    public void Mark()
    {
        lock (_written)
        {
            _mark = (int)_written.Length;
        }
    }

    /// <summary>Fails if anything but TLS was written since it began.</summary>
    public void Check()
    {
        lock (_written)
        {
            if (_mark >= 0)
            {
                Records.Check(_written.ToArray().AsSpan(_mark), "server");
            }
        }
    }

    public override bool CanGetUnflushedBytes => inner.CanGetUnflushedBytes;

    public override long UnflushedBytes => inner.UnflushedBytes;

    public override Memory<byte> GetMemory(int sizeHint = 0) => _room = inner.GetMemory(sizeHint);

    public override Span<byte> GetSpan(int sizeHint = 0) => GetMemory(sizeHint).Span;

    public override void Advance(int bytes)
    {
        lock (_written)
        {
            _written.Write(_room.Span[..bytes]);
        }
        _room = _room[bytes..];
        inner.Advance(bytes);
    }

    public override ValueTask<FlushResult> FlushAsync(CancellationToken cancellationToken = default) => inner.FlushAsync(cancellationToken);

    public override void CancelPendingFlush() => inner.CancelPendingFlush();

    public override void Complete(Exception? exception = null) => inner.Complete(exception);
}
