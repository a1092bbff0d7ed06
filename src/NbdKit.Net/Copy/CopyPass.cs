using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;

namespace NbdKit.Copy;

/// <summary>One pass over the source, by all workers: the copy itself, or the comparison after it.</summary>
internal sealed class CopyPass : IDisposable
{
    private readonly IReadOnlyList<NextContext> _source;
    private readonly CancellationTokenSource _stop;
    private readonly CancellationTokenRegistration _abort;
    private readonly ProgressMeter _progress;
    private readonly CancellationToken _cancellationToken;
    private volatile bool _isOver;
    private ExceptionDispatchInfo? _failure;

    public CopyPass(
        IReadOnlyList<NextContext> source,
        CopyGeometry geometry,
        CopyTarget target,
        ProgressMeter progress,
        CancellationToken cancellationToken)
    {
        _source = source;
        Geometry = geometry;
        Target = target;
        _progress = progress;
        _cancellationToken = cancellationToken;
        _stop = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken);
        Stop = _stop.Token;
        _abort = Stop.UnsafeRegister(static pass => ((CopyPass)pass!).Gate?.Abort(), this);
    }

    public CopyGeometry Geometry { get; }

    public CopyTarget Target { get; }

    public required CopyPlan Plan { get; init; }

    public required CopyCounters Counters { get; init; }

    /// <summary>The size of the blocks that are looked at for zeroes, or 0.</summary>
    public int SparseSize { get; init; }

    /// <summary>Keeps the order, if anything has to be done in order.</summary>
    public OrderGate? Gate { get; init; }

    public OrderedHash? Hash { get; init; }

    public Checkpoints? Checkpoints { get; init; }

    public bool IsVerifying { get; init; }

    /// <summary>Whose fault it is if the source of this pass cannot be read.</summary>
    public NbdCopyFault ReadFault { get; init; } = NbdCopyFault.Source;

    /// <summary>Fires when the pass is to end early.</summary>
    public CancellationToken Stop { get; }

    public bool IsStopping => _isOver || Stop.IsCancellationRequested;

    /// <summary>Runs it to its end, which is an early one if the caller's token fires.</summary>
    /// <exception cref="NbdCopyException">The first thing that went wrong.</exception>
    public async ValueTask RunAsync()
    {
        var workers = new Task[Geometry.Workers];
        for (int i = 0; i < workers.Length; i++)
        {
            workers[i] = new CopyWorker(this, i).RunAsync();
        }
        await Task.WhenAll(workers).ConfigureAwait(false);
        if (IsStopping)
        {
            await _stop.CancelAsync().ConfigureAwait(false);
        }
        await Plan.SettleAsync().ConfigureAwait(false);
        _failure?.Throw();
    }

    /// <summary>Reads a piece of the source.</summary>
    /// <param name="lane">Whose it is.</param>
    /// <param name="buffer">The whole buffer of the worker; what follows the piece may be written to.</param>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    public ValueTask ReadAsync(int lane, Memory<byte> buffer, long offset, int length)
    {
        NextContext context = _source[lane % _source.Count];
        // Only what ends with the disk may end in the middle of a block. Copies of less than the whole disk read on.
        long rest = (offset + length) & (Geometry.Alignment - 1);
        buffer = buffer[..(rest == 0 ? length : (int)Math.Min(length + Geometry.Alignment - rest, context.Info.Size - offset))];
        return buffer.Length <= Geometry.SourceSlice
            ? context.ReadAsync(buffer, offset, Stop)
            : ReadSlicesAsync(context, buffer, offset);
    }

    /// <summary>Notes that a piece is at the destination.</summary>
    public ValueTask CompleteAsync(in CopyPiece piece)
    {
        Counters.AddDone(piece.Length);
        if (piece.IsCopied)
        {
            Counters.AddResumed(piece.Length);
        }
        _progress.Tell(Counters, Plan.Size, IsVerifying);
        if (Target is CompareTarget { Difference: < long.MaxValue })
        {
            // Pieces that others are at may differ at a lower offset: they are finished, but none is begun.
            _isOver = true;
        }
        return Checkpoints?.AddAsync(piece, Stop) ?? default;
    }

    /// <summary>Ends the pass with a failure, unless it failed or was cancelled before.</summary>
    public void Fail(NbdCopyFault fault, in CopyPiece piece, Exception exception)
    {
        if (_cancellationToken.IsCancellationRequested)
        {
            // A layer whose call was cancelled may say so in its own words.
            return;
        }
        ExceptionDispatchInfo failure = ExceptionDispatchInfo.Capture(
            exception as NbdCopyException ?? Describe(fault, piece, exception));
        if (Interlocked.CompareExchange(ref _failure, failure, null) is null)
        {
            _stop.Cancel();
        }
    }

    public void Dispose()
    {
        _abort.Dispose();
        _stop.Dispose();
    }

    private NbdCopyException Describe(NbdCopyFault fault, in CopyPiece piece, Exception exception)
    {
        string what = fault switch
        {
            NbdCopyFault.Source => "reading the source",
            NbdCopyFault.Destination when IsVerifying => "reading the destination again",
            NbdCopyFault.Destination => "writing the destination",
            _ => "keeping track of the copy",
        };
        return new NbdCopyException(
            fault,
            piece.Offset,
            $"{what} failed at offset {piece.Offset} (in {piece.Length} bytes): {exception.Message}",
            exception);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask ReadSlicesAsync(NextContext context, Memory<byte> buffer, long offset)
    {
        while (!buffer.IsEmpty)
        {
            int count = Math.Min(buffer.Length, Geometry.SourceSlice);
            await context.ReadAsync(buffer[..count], offset, Stop).ConfigureAwait(false);
            buffer = buffer[count..];
            offset += count;
        }
    }
}
