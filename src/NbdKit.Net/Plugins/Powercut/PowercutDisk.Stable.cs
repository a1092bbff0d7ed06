using NbdKit.Layers;

namespace NbdKit.Plugins.Powercut;

// The way from the journal to the chain.
internal sealed partial class PowercutDisk
{
    private const int PieceBytes = 1 << 20;

    // Never written to.
    private static readonly byte[] Zeroes = new byte[PieceBytes];

    private bool CanFlushChain => _chain.Info is { CanFlush: true } or { CanFua: Support.Emulate };

    // A chain that takes FUA but no flushes gets everything with FUA, and one that takes neither promises nothing.
    private RequestFlags StableFlags
        => !CanFlushChain && _chain.Info.CanFua != Support.None ? RequestFlags.Fua : RequestFlags.None;

    private async ValueTask CompleteDurablyAsync(PowercutHandle context, long id, CancellationToken cancellationToken)
    {
        try
        {
            await MakeDurableAsync(context, [id], cancellationToken).ConfigureAwait(false);
        }
        finally
        {
            // One that failed is left in the journal, as a change that has completed: it may be there or not.
            lock (_lock)
            {
                _journal.Complete(id);
            }
        }
    }

    /// <summary>Writes records to the chain in their order, flushes it, and takes them out of the journal.</summary>
    /// <remarks>
    /// If anything fails they stay. The chain may have some of them then, which a cut would have been free to leave as well.
    /// </remarks>
    private async ValueTask MakeDurableAsync(PowercutHandle? context, long[] ids, CancellationToken cancellationToken)
    {
        await _stable.WaitAsync(cancellationToken).ConfigureAwait(false);
        try
        {
            List<JournalRecord> records;
            lock (_lock)
            {
                Require(context);
                records = _journal.Find(ids);
            }
            foreach (JournalRecord record in records)
            {
                foreach (JournalRange range in record.Ranges)
                {
                    await KeepForImagesAsync(range, null, cancellationToken).ConfigureAwait(false);
                    await (record.Kind == JournalKind.Write
                        ? WriteChainAsync(record.Bytes(range), range.Start, cancellationToken)
                        : ZeroChainAsync(range, record.Kind == JournalKind.Trim, cancellationToken)).ConfigureAwait(false);
                }
            }
            await FlushChainAsync(cancellationToken).ConfigureAwait(false);
            lock (_lock)
            {
                _journal.Settle(records);
            }
        }
        finally
        {
            _stable.Release();
        }
    }

    private ValueTask WriteChainAsync(ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken)
        => _chain.WriteInPiecesAsync(data, offset, StableFlags, cancellationToken);

    private async ValueTask ZeroChainAsync(JournalRange range, bool mayTrim, CancellationToken cancellationToken)
    {
        if (_chain.Info.CanZero != Support.None)
        {
            RequestFlags flags = StableFlags | (mayTrim ? RequestFlags.MayTrim : RequestFlags.None);
            await _chain.ZeroAsync(range.Start, range.End - range.Start, flags, cancellationToken).ConfigureAwait(false);
            return;
        }
        for (long at = range.Start; at < range.End; at += PieceBytes)
        {
            await WriteChainAsync(Zeroes.AsMemory(0, (int)Math.Min(PieceBytes, range.End - at)), at, cancellationToken)
                .ConfigureAwait(false);
        }
    }

    private ValueTask FlushChainAsync(CancellationToken cancellationToken)
        => CanFlushChain ? _chain.FlushAsync(cancellationToken) : default;
}
