using System.Buffers;
using System.IO.Pipelines;

namespace NbdKit.Tests.Testing;

/// <summary>
/// Shows its reader no byte beyond the next cut of the stream before it has examined all bytes up to that cut, and each
/// byte in a segment of its own: the worst that a transport may do to a parser, without any timing.
/// </summary>
/// <param name="inner">Where the bytes come from.</param>
/// <param name="nextCut">For a position in the stream that was reached, the next position to stop at.</param>
internal sealed class CuttingPipeReader(PipeReader inner, Func<long, long> nextCut) : PipeReader
{
    private ReadOnlySequence<byte> _whole;
    private ReadOnlySequence<byte> _shown;
    private long _consumed;
    private long _limit = nextCut(0);

    public override async ValueTask<ReadResult> ReadAsync(CancellationToken cancellationToken = default)
        => Show(await inner.ReadAsync(cancellationToken));

    public override bool TryRead(out ReadResult result)
    {
        if (!inner.TryRead(out ReadResult whole))
        {
            result = default;
            return false;
        }
        result = Show(whole);
        return true;
    }

    public override void AdvanceTo(SequencePosition consumed) => AdvanceTo(consumed, consumed);

    public override void AdvanceTo(SequencePosition consumed, SequencePosition examined)
    {
        long consumedNow = _shown.Slice(0, consumed).Length;
        long examinedNow = Math.Max(consumedNow, _shown.Slice(0, examined).Length);
        _consumed += consumedNow;
        if (examinedNow == _shown.Length && _consumed + (examinedNow - consumedNow) >= _limit)
        {
            _limit = nextCut(_limit);
        }
        inner.AdvanceTo(_whole.GetPosition(consumedNow), _whole.GetPosition(examinedNow));
    }

    public override void CancelPendingRead() => inner.CancelPendingRead();

    public override void Complete(Exception? exception = null) => inner.Complete(exception);

    private ReadResult Show(ReadResult result)
    {
        _whole = result.Buffer;
        long count = Math.Min(_whole.Length, _limit - _consumed);
        _shown = ByteSegment.Split(_whole.Slice(0, count));
        return new ReadResult(_shown, result.IsCanceled, result.IsCompleted && count == _whole.Length);
    }

    private sealed class ByteSegment : ReadOnlySequenceSegment<byte>
    {
        private ByteSegment(byte value, ByteSegment? previous)
        {
            Memory = new[] { value };
            if (previous is not null)
            {
                RunningIndex = previous.RunningIndex + 1;
                previous.Next = this;
            }
        }

        public static ReadOnlySequence<byte> Split(ReadOnlySequence<byte> bytes)
        {
            if (bytes.IsEmpty)
            {
                return ReadOnlySequence<byte>.Empty;
            }
            ByteSegment? first = null;
            ByteSegment? last = null;
            foreach (byte value in bytes.ToArray())
            {
                last = new ByteSegment(value, last);
                first ??= last;
            }
            return new ReadOnlySequence<byte>(first!, 0, last!, 1);
        }
    }
}
