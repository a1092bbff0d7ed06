using System.Runtime.CompilerServices;

namespace NbdKit.Copy;

/// <summary>
/// Takes one piece after the other: reads it into its buffer, looks for zeroes, and writes from the same buffer.
/// </summary>
/// <remarks>
/// There is a worker for each request in flight, and not a thread: a piece whose layers complete at once is done on the thread
/// that the worker is on, and the next one too. What blocks takes a thread of the pool meanwhile, so the others go on elsewhere.
/// </remarks>
internal sealed class CopyWorker(CopyPass pass, int lane)
{
    /// <summary>After so many pieces a worker lets others have its thread, which belongs to the host.</summary>
    private const int Stint = 32;

    private readonly OrderGate.Turn _turn = new();
    private NbdCopyFault _fault;
    private CopyPiece _piece;

    /// <summary>Works until there is nothing left to do or the pass stops. Never fails: what goes wrong is told to the pass.</summary>
    public async Task RunAsync()
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        using var buffer = new CopyBuffer(pass.Geometry.Chunk);
        try
        {
            for (int done = 1; !pass.IsStopping; done++)
            {
                _fault = pass.ReadFault;
                _piece = await pass.Plan.TakeAsync(buffer, pass.Stop).ConfigureAwait(false);
                if (_piece.Kind == PieceKind.End)
                {
                    return;
                }
                await CopyAsync(buffer).ConfigureAwait(false);
                _fault = NbdCopyFault.Journal;
                await pass.CompleteAsync(_piece).ConfigureAwait(false);
                if (done % Stint == 0)
                {
                    await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
                }
            }
        }
        catch (OperationCanceledException) when (pass.IsStopping)
        {
            // The one who stopped the pass has said why.
        }
        catch (Exception e)
        {
            pass.Fail(_fault, _piece, e);
        }
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask CopyAsync(CopyBuffer buffer)
    {
        CopyPiece piece = _piece;
        if (piece.Kind == PieceKind.Skipped)
        {
            return;
        }
        ReadOnlyMemory<byte> data = default;
        if (piece.Kind is PieceKind.Data or PieceKind.Filled)
        {
            if (piece.Kind == PieceKind.Data)
            {
                await pass.ReadAsync(lane, buffer.Memory, piece.Offset, (int)piece.Length).ConfigureAwait(false);
            }
            pass.Counters.AddRead(piece.Length);
            data = buffer.Memory[..(int)piece.Length];
        }
        _fault = NbdCopyFault.Destination;
        bool inOrder = pass.Gate is not null && pass.Target.IsOrdered;
        if (inOrder)
        {
            await pass.Gate!.WaitAsync(piece.Sequence, _turn).ConfigureAwait(false);
        }
        if (!piece.IsCopied)
        {
            await (piece.Kind == PieceKind.Zero
                ? pass.Target.ZeroAsync(lane, piece.Offset, piece.Length, pass.Stop)
                : StoreAsync(data, piece.Offset)).ConfigureAwait(false);
        }
        if (pass.Gate is null)
        {
            return;
        }
        if (!inOrder)
        {
            await pass.Gate.WaitAsync(piece.Sequence, _turn).ConfigureAwait(false);
        }
        if (piece.Kind == PieceKind.Zero)
        {
            pass.Hash?.AppendZeroes(piece.Length, pass.Stop);
        }
        else
        {
            pass.Hash?.Append(data.Span);
        }
        pass.Gate.Advance();
    }

    private ValueTask StoreAsync(ReadOnlyMemory<byte> data, long offset)
    {
        if (pass.SparseSize == 0)
        {
            return pass.Target.WriteAsync(lane, data, offset, pass.Stop);
        }
        int run = ZeroScan.Run(data.Span, offset, pass.SparseSize, out bool isZero);
        return run < data.Length ? StoreRunsAsync(data, offset)
            : isZero ? pass.Target.ZeroAsync(lane, data, offset, pass.Stop)
            : pass.Target.WriteAsync(lane, data, offset, pass.Stop);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask StoreRunsAsync(ReadOnlyMemory<byte> data, long offset)
    {
        while (!data.IsEmpty)
        {
            int run = ZeroScan.Run(data.Span, offset, pass.SparseSize, out bool isZero);
            await (isZero
                ? pass.Target.ZeroAsync(lane, data[..run], offset, pass.Stop)
                : pass.Target.WriteAsync(lane, data[..run], offset, pass.Stop)).ConfigureAwait(false);
            data = data[run..];
            offset += run;
        }
    }
}
