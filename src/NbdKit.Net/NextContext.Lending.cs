using NbdKit.Buffers;

namespace NbdKit;

// Lending: large payloads travel between the client and the memory of a layer without a copy in between.
public sealed partial class NextContext
{
    /// <summary>The first bytes of a range are about to be read. A hint, and the offset may be any.</summary>
    internal void Prefetch(long offset)
    {
        if (!IsDirect)
        {
            return;
        }
        if (_readVia is not null)
        {
            _readVia.Prefetch(offset);
        }
        else if (_plugin is ILender lender)
        {
            lender.Prefetch(offset);
        }
        else if (_keptNext is not null && _filter is ILendingFilter filter)
        {
            filter.Prefetch(_keptNext, offset);
        }
    }

    /// <summary>
    /// Whether reads go straight to a plugin of the library that fills a buffer or fails, so that what was in the buffer before never
    /// gets out.
    /// </summary>
    internal bool FillsReads => IsDirect && (_readVia ?? this)._plugin is ILender;

    /// <summary>Lends a range, at once or not at all. Only where no gate and no emulation stands in the way.</summary>
    internal bool TryLend(long offset, int length, Loan loan, bool forWrite)
    {
        CheckRange(offset, length);
        if (_gate is not null)
        {
            return false;
        }
        if (forWrite)
        {
            Require(_info!.CanWrite, "write");
        }
        if (_plugin is not null)
        {
            return _plugin is ILender lender && lender.TryLend(offset, length, loan, forWrite);
        }
        if (_filter is not ILendingFilter filter)
        {
            return false;
        }
        NextContext next = _filterContext!.EnterNext();
        try
        {
            return filter.TryLend(next, offset, length, loan, forWrite);
        }
        finally
        {
            next.Leave();
        }
    }
}
