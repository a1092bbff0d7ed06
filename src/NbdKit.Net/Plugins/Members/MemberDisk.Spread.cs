using System.Runtime.ExceptionServices;
using NbdKit.Layers;

namespace NbdKit.Plugins.Members;

// Work that several members share, and questions about what they are made of.
internal sealed partial class MemberDisk
{
    // However finely a disk is striped, one answer takes no longer than this many steps.
    private const int MostPieces = 65_536;

    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        bool one = (flags & RequestFlags.RequestOne) != 0;
        var lists = new ExtentList?[_next.Length];
        int[] places = new int[_next.Length];
        long at = offset;
        long end = offset + length;
        for (int i = 0; at < end && i < MostPieces && !extents.IsFull && !(one && extents.Count > 1); i++)
        {
            (int member, long from, long count) = _layout.Locate(at);
            ExtentList? list = lists[member];
            if (list is null || list.Covered <= from)
            {
                long last = _layout.Before(member, end);
                lists[member] = list = new ExtentList(from, last, extents.MetaContext);
                places[member] = 0;
                await (extents.MetaContext == ExtentList.AllocationDepth
                    ? AllocationDepth.AskAsync(_next[member], from, last - from, flags, list, deeper: 0, cancellationToken)
                    : _next[member].ExtentsAsync(from, last - from, flags, list, cancellationToken)).ConfigureAwait(false);
            }
            while (list[places[member]].End <= from)
            {
                places[member]++;
            }
            Extent extent = list[places[member]];
            count = Math.Min(Math.Min(count, end - at), extent.End - from);
            extents.Add(at, count, extent.Status);
            at += count;
        }
    }

    /// <summary>Runs on each member that has a part of a range, and waits for all of them.</summary>
    private ValueTask EachAsync(long offset, long length, Func<int, long, long, ValueTask> act)
    {
        MemberPiece piece = _layout.Locate(offset);
        return length <= piece.Length ? act(piece.Member, piece.Offset, length) : new(EachAcrossAsync(offset, length, act));
    }

    private Task EachAcrossAsync(long offset, long length, Func<int, long, long, ValueTask> act)
    {
        var pending = new List<Task>(_next.Length);
        for (int i = 0; i < _next.Length; i++)
        {
            int member = i;
            long from = _layout.Before(member, offset);
            long count = _layout.Before(member, offset + length) - from;
            if (count > 0)
            {
                pending.Add(Start(_next[member], () => act(member, from, count)));
            }
        }
        return Task.WhenAll(pending);
    }

    private ValueTask AllAsync(Func<NextContext, ValueTask> act)
        => _next.Length == 1 ? act(_next[0]) : new(Task.WhenAll(_next.Select(next => Start(next, () => act(next))).ToArray()));

    /// <summary>Begins work on one member; whatever goes wrong is in the task, so that the others are begun and waited for.</summary>
    private static Task Start(NextContext next, Func<ValueTask> act)
    {
        if (next.Info.IsBlocking)
        {
            return Task.Run(async () => await act().ConfigureAwait(false));
        }
        try
        {
            return act().AsTask();
        }
        catch (Exception e)
        {
            return Task.FromException(e);
        }
    }

    private async ValueTask FinalizeAllAsync(CancellationToken quick)
    {
        Exception? failure = null;
        foreach (InnerContext member in _members)
        {
            try
            {
                await member.FinalizeAsync(quick).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                failure ??= e;
            }
        }
        if (failure is not null)
        {
            ExceptionDispatchInfo.Throw(failure);
        }
    }
}
