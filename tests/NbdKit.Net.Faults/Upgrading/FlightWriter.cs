using System.IO.Pipelines;

namespace NbdKit.Faults.Upgrading;

/// <summary>The output of a client that falls silent behind some of its flights, or in the middle of one.</summary>
internal sealed class FlightWriter(PipeWriter inner) : PipeWriter
{
    /// <summary>How many more halves of a flight are sent; the rest is lost.</summary>
    public int Halves { get; set; } = int.MaxValue;

    public override async ValueTask<FlushResult> WriteAsync(ReadOnlyMemory<byte> source, CancellationToken cancellationToken = default)
    {
        int halves = Math.Min(2, Halves);
        Halves -= Halves == int.MaxValue ? 0 : halves;
        return halves == 0 ? default : await inner.WriteAsync(halves == 1 ? source[..(source.Length / 2)] : source, cancellationToken);
    }

    public override Memory<byte> GetMemory(int sizeHint = 0) => inner.GetMemory(sizeHint);

    public override Span<byte> GetSpan(int sizeHint = 0) => inner.GetSpan(sizeHint);

    public override void Advance(int bytes) => inner.Advance(bytes);

    public override ValueTask<FlushResult> FlushAsync(CancellationToken cancellationToken = default) => inner.FlushAsync(cancellationToken);

    public override void CancelPendingFlush() => inner.CancelPendingFlush();

    public override void Complete(Exception? exception = null) => inner.Complete(exception);
}
