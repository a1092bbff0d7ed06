namespace NbdKit.Copy;

/// <summary>One copy, from the checks before it to the comparison after it.</summary>
internal sealed class CopyRun
{
    private readonly NbdCopySource _source;
    private readonly NbdCopyDestination _destination;
    private readonly NbdCopyOptions _options;
    private readonly CopyGeometry _geometry;
    private readonly CopyCounters _counters = new();
    private readonly ProgressMeter _progress;
    private readonly long _start;
    private byte[]? _sha256;

    public CopyRun(NbdCopySource source, NbdCopyDestination destination, NbdCopyOptions options)
    {
        _source = source;
        _destination = destination;
        _options = options;
        _geometry = new CopyGeometry(Blocks(source.Contexts), Blocks(destination.Contexts), options);
        _start = options.TimeProvider.GetTimestamp();
        _progress = new ProgressMeter(options, _start);
    }

    private bool ToDisk => _destination.Contexts.Count > 0;

    private bool FromDisk => _source.Contexts.Count > 0;

    private long? Size => FromDisk ? _source.Contexts[0].Info.Size : StreamSize(_source.Stream!);

    /// <summary>Copies.</summary>
    public async Task<NbdCopyResult> ExecuteAsync(CancellationToken cancellationToken)
    {
        CheckRequest();
        CheckDestination();
        cancellationToken.ThrowIfCancellationRequested();
        CopyTarget target = ToDisk ? new ContextTarget(_destination.Contexts, _geometry, _options, _counters)
            : _destination.Stream is { } stream ? new StreamTarget(stream, _options, _counters)
            : new NullTarget();
        using CopyJournal? journal = OpenJournal(target);
        await CopyAsync(target, journal, cancellationToken).ConfigureAwait(false);
        if (_options.Flush || journal is not null)
        {
            await FlushAsync(target, cancellationToken).ConfigureAwait(false);
        }
        _progress.TellEnd(_counters, _counters.Done, isVerifying: false);
        if (_options.Verify)
        {
            await VerifyAsync(journal, cancellationToken).ConfigureAwait(false);
        }
        journal?.Remove();
        return new NbdCopyResult
        {
            Size = _counters.Done,
            BytesRead = _counters.Read,
            BytesWritten = _counters.Written,
            BytesZeroed = _counters.Zeroed,
            BytesResumed = _counters.Resumed,
            Sha256 = _options.ComputeHash ? new ReadOnlyMemory<byte>(_sha256) : default(ReadOnlyMemory<byte>?),
            Elapsed = _options.TimeProvider.GetElapsedTime(_start),
        };
    }

    public static NbdCopyException FlushFailure(Exception e)
        => new(NbdCopyFault.Destination, 0, $"flushing the destination failed: {e.Message}", e);

    private void CheckRequest()
    {
        if (_options.Verify && !ToDisk)
        {
            throw new ArgumentException("Only a destination that is a disk can be read again to verify it.", "options");
        }
        if (_options.JournalPath is not null && !(FromDisk && ToDisk))
        {
            throw new ArgumentException("Only a copy from a disk to a disk can have a journal and be resumed.", "options");
        }
    }

    private void CheckDestination()
    {
        if (!ToDisk)
        {
            return;
        }
        NbdExportInfo info = _destination.Contexts[0].Info;
        if (!_destination.Contexts.All(context => context.Info.CanWrite))
        {
            var cause = new NbdException(NbdError.PermissionDenied, "it is read-only");
            throw new NbdCopyException(NbdCopyFault.Destination, 0, $"the destination cannot be written: {cause.Message}", cause);
        }
        if (Size > info.Size)
        {
            string message = $"the destination has {info.Size} bytes, which are fewer than the {Size} of the source";
            throw new NbdCopyException(NbdCopyFault.Destination, info.Size, message, new NbdException(NbdError.NoSpace, message));
        }
    }

    private CopyJournal? OpenJournal(CopyTarget target)
    {
        if (_options.JournalPath is not { } path)
        {
            return null;
        }
        return ((ContextTarget)target).CanFlush
            ? CopyJournal.Open(
                path,
                new JournalIdentity(
                    Size!.Value, _destination.Contexts[0].Info.Size, _geometry.Alignment, _options.JournalIdentity))
            : throw new NbdCopyException(
                NbdCopyFault.Journal,
                0,
                "the destination takes no flushes: nothing can be known to be on stable storage, and no journal be kept");
    }

    private async ValueTask CopyAsync(CopyTarget target, CopyJournal? journal, CancellationToken cancellationToken)
    {
        bool hashes = _options.ComputeHash || (_options.Verify && !FromDisk);
        using OrderedHash? hash = hashes ? new OrderedHash() : null;
        Checkpoints? checkpoints = journal is null ? null : new Checkpoints(journal, (ContextTarget)target, _options);
        using var pass = new CopyPass(_source.Contexts, _geometry, target, _progress, cancellationToken)
        {
            Plan = FromDisk
                ? Plan(_source.Contexts, Size!.Value, target, journal?.Copied, hashes, cancellationToken)
                : new StreamPlan(_source.Stream!, _geometry),
            Counters = _counters,
            // Smaller runs than what both sides deal in cannot be zeroed.
            SparseSize = target.WantsZeroes && _options.SparseSize != 0 ? Math.Max(_options.SparseSize, _geometry.Alignment) : 0,
            Gate = hashes || target.IsOrdered ? new OrderGate(_geometry.Workers) : null,
            Hash = hash,
            Checkpoints = checkpoints,
        };
        try
        {
            await pass.RunAsync().ConfigureAwait(false);
            cancellationToken.ThrowIfCancellationRequested();
            await target.EndAsync(cancellationToken).ConfigureAwait(false);
        }
        catch when (checkpoints is not null)
        {
            await checkpoints.SaveAtEndAsync().ConfigureAwait(false);
            throw;
        }
        _sha256 = hash?.Finish();
    }

    private async ValueTask VerifyAsync(CopyJournal? journal, CancellationToken cancellationToken)
    {
        long size = _counters.Done;
        var counters = new CopyCounters();
        CompareTarget? compare = FromDisk ? new CompareTarget(_destination.Contexts, _geometry, _options.UseExtents) : null;
        CopyTarget target = compare ?? (CopyTarget)new NullTarget();
        IReadOnlyList<NextContext> source = FromDisk ? _source.Contexts : _destination.Contexts;
        using OrderedHash? hash = FromDisk ? null : new OrderedHash();
        using var pass = new CopyPass(source, _geometry, target, _progress, cancellationToken)
        {
            Plan = Plan(source, size, target, null, hash is not null, cancellationToken),
            Counters = counters,
            Gate = hash is null ? null : new OrderGate(_geometry.Workers),
            Hash = hash,
            IsVerifying = true,
            ReadFault = FromDisk ? NbdCopyFault.Source : NbdCopyFault.Destination,
        };
        await pass.RunAsync().ConfigureAwait(false);
        cancellationToken.ThrowIfCancellationRequested();
        long difference = compare is null
            ? hash!.Finish().AsSpan().SequenceEqual(_sha256) ? long.MaxValue : -1
            : compare.Difference;
        if (difference != long.MaxValue)
        {
            // What it calls copied cannot be trusted.
            journal?.Remove();
            throw new NbdCopyException(
                NbdCopyFault.Mismatch,
                difference,
                difference < 0
                    ? "the destination differs from the source: their hashes are not the same"
                    : $"the destination differs from the source at offset {difference}");
        }
        _progress.TellEnd(counters, size, isVerifying: true);
    }

    private ExtentPlan Plan(
        IReadOnlyList<NextContext> source,
        long size,
        CopyTarget target,
        RangeSet? copied,
        bool wantsAll,
        CancellationToken cancellationToken)
        => new(
            source[0],
            size,
            _geometry,
            _options,
            // What takes its time, because it is hashed or written, is cut so that it can be reported and cancelled.
            wantsAll || target.IsOrdered ? Math.Min(target.ZeroPiece, 64 << 20) : target.ZeroPiece,
            copied is { IsEmpty: false } ? copied : null,
            wantsAll,
            cancellationToken);

    private static async ValueTask FlushAsync(CopyTarget target, CancellationToken cancellationToken)
    {
        try
        {
            await target.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (Exception e) when (e is not OperationCanceledException || !cancellationToken.IsCancellationRequested)
        {
            throw FlushFailure(e);
        }
    }

    private static BlockSize Blocks(IReadOnlyList<NextContext> contexts)
        => contexts.Count == 0 ? default : contexts[0].Info.BlockSize;

    private static long? StreamSize(Stream stream) => stream.CanSeek ? Math.Max(0, stream.Length - stream.Position) : null;
}
