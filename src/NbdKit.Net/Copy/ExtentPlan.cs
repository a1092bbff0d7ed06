namespace NbdKit.Copy;

/// <summary>
/// An opened disk as source, cut along its extents. The extents are asked for as the copy goes, one answer ahead.
/// </summary>
internal sealed class ExtentPlan : CopyPlan
{
    /// <summary>Zeroes shorter than this are not worth a request of their own.</summary>
    private const int SmallestZero = 4096;

    /// <summary>With fewer extents in an answer, more is asked for the next time.</summary>
    private const int FewExtents = 64;

    private readonly NextContext _source;
    private readonly CopyGeometry _geometry;
    private readonly RangeSet? _copied;
    private readonly bool _wantsCopied;
    private readonly long _zeroPiece;
    private readonly bool _useExtents;
    private readonly Lock _lock = new();
    private readonly SemaphoreSlim _filling = new(1, 1);
    private readonly CancellationToken _cancellationToken;

    private List<PlanRun> _runs = [];
    private int _run;
    private long _at;
    private long _mapped;
    private long _sequence;
    private Task<List<PlanRun>>? _ahead;

    // How much is asked for at a time; a layer may answer less. One question is out at a time.
    private long _window = 1L << 30;

    /// <param name="source">The disk.</param>
    /// <param name="size">How much of it, from its begin.</param>
    /// <param name="geometry">How to cut.</param>
    /// <param name="options">Whether to ask for extents.</param>
    /// <param name="zeroPiece">The longest piece of zeroes, a multiple of the alignment.</param>
    /// <param name="copied">What was copied before, or null.</param>
    /// <param name="wantsCopied">Whether what was copied before is to be read all the same.</param>
    /// <param name="cancellationToken">Ends what is asked for ahead.</param>
    public ExtentPlan(
        NextContext source,
        long size,
        CopyGeometry geometry,
        NbdCopyOptions options,
        long zeroPiece,
        RangeSet? copied,
        bool wantsCopied,
        CancellationToken cancellationToken)
    {
        _source = source;
        _geometry = geometry;
        _copied = copied;
        _wantsCopied = wantsCopied;
        _zeroPiece = zeroPiece;
        _useExtents = options.UseExtents && source.Info.CanExtents
            && source.Info.MetaContexts.Contains(ExtentList.BaseAllocation);
        _cancellationToken = cancellationToken;
        Size = size;
    }

    public override long? Size { get; }

    private long End => Size!.Value;

    public override ValueTask<CopyPiece> TakeAsync(CopyBuffer buffer, CancellationToken cancellationToken)
        => TryTake(out CopyPiece piece) ? new(piece) : FillAndTakeAsync(cancellationToken);

    public override async ValueTask SettleAsync()
    {
        if (_ahead is not null)
        {
            // Whatever came of it: the copy has ended without it.
            await ((Task)_ahead).ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
    }

    private bool TryTake(out CopyPiece piece)
    {
        lock (_lock)
        {
            if (_at >= End)
            {
                piece = default;
                return true;
            }
            if (_run >= _runs.Count)
            {
                piece = default;
                return false;
            }
            PlanRun run = _runs[_run];
            bool isCopied = false;
            long boundary = long.MaxValue;
            if (_copied is not null)
            {
                isCopied = _copied.Find(_at, out boundary);
            }
            PieceKind kind = isCopied && !_wantsCopied ? PieceKind.Skipped : run.IsZero ? PieceKind.Zero : PieceKind.Data;
            long most = kind switch
            {
                PieceKind.Skipped => long.MaxValue,
                PieceKind.Zero => _zeroPiece > long.MaxValue - _at ? long.MaxValue : _at + _zeroPiece,
                // Cut at multiples, whatever it begins with, so that the requests fit the blocks of both sides.
                _ => _at > long.MaxValue - _geometry.Chunk ? long.MaxValue : _at - (_at % _geometry.Chunk) + _geometry.Chunk,
            };
            long end = Math.Min(Math.Min(run.End, boundary), most);
            piece = new CopyPiece(kind, _at, end - _at, _sequence++, isCopied);
            _at = end;
            if (end == run.End)
            {
                _run++;
            }
            return true;
        }
    }

    private async ValueTask<CopyPiece> FillAndTakeAsync(CancellationToken cancellationToken)
    {
        while (true)
        {
            await _filling.WaitAsync(cancellationToken).ConfigureAwait(false);
            try
            {
                // Somebody else may have filled it while this one waited.
                if (TryTake(out CopyPiece piece))
                {
                    return piece;
                }
                List<PlanRun> runs = await (_ahead ?? MapAsync(_mapped)).ConfigureAwait(false);
                _mapped = runs[^1].End;
                lock (_lock)
                {
                    _runs = runs;
                    _run = 0;
                }
                _ahead = _mapped < End ? MapAsync(_mapped) : null;
            }
            finally
            {
                _filling.Release();
            }
        }
    }

    private async Task<List<PlanRun>> MapAsync(long from)
    {
        if (!_useExtents)
        {
            return [new PlanRun(End, IsZero: false)];
        }
        long size = _source.Info.Size;
        var extents = new ExtentList(from, size);
        // Whole blocks, also where less than the whole disk is wanted.
        long asked = Math.Min(_window, Math.Min(RoundUp(End, _geometry.Alignment), size) - from);
        try
        {
            await _source.ExtentsAsync(from, asked, RequestFlags.None, extents, _cancellationToken)
                .ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException || !_cancellationToken.IsCancellationRequested)
        {
            throw new NbdCopyException(
                NbdCopyFault.Source, from, $"asking the source for its extents failed at offset {from}: {e.Message}", e);
        }
        if (extents.Count < FewExtents && extents.Covered - from >= asked && _window < 1L << 62)
        {
            _window *= 2;
        }
        return Runs(extents, Math.Max(_geometry.Alignment, SmallestZero));
    }

    /// <summary>Rounds extents to blocks: a block that is not all zeroes is data.</summary>
    private List<PlanRun> Runs(ExtentList extents, long block)
    {
        long at = extents.Start;
        long covered = Math.Min(extents.Covered, End);
        // What an answer tells of its last block in part is asked for again with the next one.
        long limit = covered == End ? End : covered & -block;
        if (limit <= at)
        {
            return [new PlanRun(End - at > block ? at + block : End, IsZero: false)];
        }
        var runs = new List<PlanRun>();
        for (int i = 0; i < extents.Count; i++)
        {
            if (!IsZero(extents[i]))
            {
                continue;
            }
            long start = extents[i].Offset <= at ? at : RoundUp(extents[i].Offset, block);
            // Zeroes with space and zeroes without are neighbours often.
            while (i + 1 < extents.Count && IsZero(extents[i + 1]))
            {
                i++;
            }
            long end = extents[i].End >= limit ? limit : extents[i].End & -block;
            if (start >= end)
            {
                continue;
            }
            if (start > at)
            {
                runs.Add(new PlanRun(start, IsZero: false));
            }
            runs.Add(new PlanRun(end, IsZero: true));
            at = end;
        }
        if (at < limit)
        {
            runs.Add(new PlanRun(limit, IsZero: false));
        }
        return runs;
    }

    private static bool IsZero(in Extent extent) => (extent.Status & ExtentStatus.Zero) != 0;

    private static long RoundUp(long value, long block)
        => value > long.MaxValue - block ? long.MaxValue : (value + block - 1) & -block;
}
