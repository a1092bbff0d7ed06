using NbdKit.Layers;

namespace NbdKit.Plugins.Powercut;

/// <summary>
/// The disk of a <see cref="PowercutPlugin"/>, shared by its contexts: the chain, which is what is on stable storage, and the
/// journal of what is not.
/// </summary>
/// <remarks>
/// The journal changes under a lock that is never held across a call. Whoever changes the chain, or needs it not to change,
/// holds the stable side; records leave the journal only meanwhile.
/// </remarks>
internal sealed partial class PowercutDisk
{
    private readonly Lock _lock = new();
    private readonly Journal _journal = new();
    private readonly SemaphoreSlim _stable = new(1, 1);
    private readonly InnerContext _inner;
    private readonly NextContext _chain;
    private readonly PowercutPlugin _plugin;
    private int _generation;

    public PowercutDisk(PowercutPlugin plugin, InnerContext inner)
    {
        _plugin = plugin;
        _inner = inner;
        _chain = inner.Next;
        SectorSize = plugin.SectorSize;
        Info = new NbdExportInfo
        {
            Size = inner.Info.Size,
            BlockSize = inner.Info.BlockSize,
            CanWrite = inner.Info.CanWrite,
            CanFlush = true,
            CanTrim = true,
            CanZero = Support.Native,
            CanFastZero = true,
            CanFua = Support.Native,
            CanMultiConn = plugin.IsMultiConn,
            IsRotational = inner.Info.IsRotational,
            IsBlocking = inner.Info.IsBlocking,
        };
    }

    public NbdExportInfo Info { get; }

    public int SectorSize { get; }

    public int Generation => Volatile.Read(ref _generation);

    public long Pending
    {
        get
        {
            lock (_lock)
            {
                return _journal.Cost;
            }
        }
    }

    public async ValueTask ReadAsync(
        PowercutHandle context, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        // The journal comes first: what leaves it from now on is in the chain already, or is here.
        List<JournalRecord>? records;
        lock (_lock)
        {
            Require(context);
            records = _journal.Touching(offset, offset + buffer.Length);
        }
        int first = records?.FindLastIndex(record => record.Covers(offset, offset + buffer.Length)) ?? -1;
        if (first < 0)
        {
            await _chain.ReadAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
        }
        for (int i = Math.Max(0, first); i < records?.Count; i++)
        {
            records[i].Apply(buffer.Span, offset);
        }
        // A reboot may have come between.
        Require(context);
    }

    /// <summary>Adds a change to the journal; a durable one goes through it at once.</summary>
    public ValueTask ChangeAsync(
        PowercutHandle context,
        JournalKind kind,
        long offset,
        long length,
        ReadOnlyMemory<byte> data,
        bool durable,
        CancellationToken cancellationToken)
    {
        byte[]? bytes = kind == JournalKind.Write ? data.ToArray() : null;
        long cost = durable ? 0 : Math.Max(SectorSize, data.Length);
        JournalRecord record;
        lock (_lock)
        {
            Require(context);
            if (cost > _plugin.MaxPending - _journal.Cost)
            {
                throw new NbdException(
                    NbdError.NoSpace,
                    $"{_journal.Cost} bytes are not flushed, and no more than {_plugin.MaxPending} may be");
            }
            record = _journal.Add(kind, context, offset, length, bytes, cost, inFlight: durable);
        }
        return durable ? CompleteDurablyAsync(context, record.Id, cancellationToken) : default;
    }

    /// <summary>Brings to the chain what had completed when the flush began.</summary>
    public ValueTask FlushAsync(PowercutHandle context, CancellationToken cancellationToken)
    {
        long[] completed;
        lock (_lock)
        {
            Require(context);
            completed = _journal.Completed(_plugin.IsMultiConn ? null : context);
        }
        return MakeDurableAsync(context, completed, cancellationToken);
    }

    /// <summary>Brings everything to the chain, as a machine does that is shut down in order.</summary>
    public ValueTask ShutDownAsync(CancellationToken cancellationToken)
    {
        long[] all;
        lock (_lock)
        {
            all = _journal.Completed(null);
        }
        return all.Length == 0 ? default : MakeDurableAsync(null, all, cancellationToken);
    }

    public ValueTask CloseAsync() => _inner.CloseAsync();

    private void Require(PowercutHandle? context)
    {
        if (context is not null && context.Generation != Generation)
        {
            throw new NbdException(NbdError.Shutdown, "the power was cut since this was opened");
        }
    }
}
