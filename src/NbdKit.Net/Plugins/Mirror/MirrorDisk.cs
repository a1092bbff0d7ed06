using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using NbdKit.Layers;

namespace NbdKit.Plugins.Mirror;

/// <summary>One context of a mirror: its own contexts of the members, and requests that do not change anything.</summary>
internal sealed partial class MirrorDisk : IChainHandle
{
    private readonly MirrorPlugin _mirror;

    // Replaced under the lock of the mirror, never changed.
    private MirrorLeg[] _legs;

    public MirrorDisk(MirrorPlugin mirror, NbdOpenContext context, NbdExportInfo info, MirrorLeg[] legs)
    {
        _mirror = mirror;
        Context = context;
        Info = info;
        _legs = legs;
    }

    public NbdOpenContext Context { get; }

    /// <summary>What the client was told. It holds for every member that comes.</summary>
    public NbdExportInfo Info { get; }

    public void Attach(MirrorLeg leg) => Volatile.Write(ref _legs, [.. _legs, leg]);

    /// <summary>Takes a member out; what is in flight on it goes on.</summary>
    public MirrorLeg? Detach(MirrorMember member)
    {
        MirrorLeg? leg = Array.Find(_legs, leg => leg.Member == member);
        Volatile.Write(ref _legs, [.. _legs.Where(leg => leg.Member != member)]);
        return leg;
    }

    public MirrorLeg? Leg(MirrorMember member) => Array.Find(Volatile.Read(ref _legs), leg => leg.Member == member);

    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken) => new(Info);

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    public async ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        // While a change is under way its range is not the same on all members. A read that saw the new data must not be
        // followed by one that sees the old.
        RangeLock.Holder held = await _mirror.Ranges
            .EnterAsync(offset, offset + buffer.Length, exclusive: false, cancellationToken).ConfigureAwait(false);
        try
        {
            MirrorLeg[] legs = Volatile.Read(ref _legs);
            int first = _mirror.NextTurn(legs.Length);
            List<(MirrorMember Member, Exception Failure)>? failed = null;
            for (int i = 0; i < legs.Length; i++)
            {
                MirrorLeg leg = legs[(first + i) % legs.Length];
                if (leg.Member.State != MirrorMemberState.InSync)
                {
                    continue;
                }
                try
                {
                    await leg.Next.ReadAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
                }
                catch (Exception e) when (!cancellationToken.IsCancellationRequested)
                {
                    (failed ??= []).Add((leg.Member, e));
                    continue;
                }
                // Only now it is known that it was the members' fault.
                failed?.ForEach(one => _mirror.Drop(one.Member, one.Failure));
                return;
            }
            Throw(failed?[0].Failure);
        }
        finally
        {
            _mirror.Ranges.Exit(held);
        }
    }

    public async ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
    {
        foreach (MirrorLeg leg in Volatile.Read(ref _legs))
        {
            if (leg.Member.State != MirrorMemberState.InSync)
            {
                continue;
            }
            try
            {
                await LayerCall.Cache(offset, length).Invoke(leg.Next, cancellationToken).ConfigureAwait(false);
            }
            catch (Exception) when (!cancellationToken.IsCancellationRequested)
            {
                // It is a hint; a member that cannot read will be found out by a read.
            }
        }
    }

    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        // A trimmed range may be a hole on one member and old data on the other. What is said must be true wherever a read
        // goes, so it is what all of them say.
        ExtentList? common = null;
        foreach (MirrorLeg leg in Volatile.Read(ref _legs))
        {
            if (leg.Member.State != MirrorMemberState.InSync)
            {
                continue;
            }
            var list = new ExtentList(offset, offset + length, extents.MetaContext);
            try
            {
                await (extents.MetaContext == ExtentList.AllocationDepth
                    ? AllocationDepth.AskAsync(leg.Next, offset, length, flags, list, deeper: 0, cancellationToken)
                    : leg.Next.ExtentsAsync(offset, length, flags, list, cancellationToken)).ConfigureAwait(false);
            }
            catch (Exception) when (!cancellationToken.IsCancellationRequested)
            {
                list = new ExtentList(offset, offset + length, extents.MetaContext);
                list.Add(offset, length, ExtentStatus.Data);
            }
            common = common is null ? list : Common(common, list);
            if (extents.MetaContext != ExtentList.BaseAllocation)
            {
                break;
            }
        }
        if (common is null)
        {
            Throw(null);
            return;
        }
        foreach (Extent extent in common)
        {
            extents.Add(extent.Offset, extent.Length, extent.Status);
        }
    }

    public async ValueTask FinalizeAsync(CancellationToken quick)
    {
        _mirror.Leave(this);
        MirrorLeg[] legs = Volatile.Read(ref _legs);
        var outcomes = new MirrorOutcome[legs.Length];
        for (int i = 0; i < legs.Length; i++)
        {
            outcomes[i].TookPart = legs[i].Member.IsActive;
            try
            {
                await legs[i].Inner.FinalizeAsync(quick).ConfigureAwait(false);
            }
            catch (Exception e)
            {
                outcomes[i].Failure = e;
            }
        }
        _mirror.Settle(legs, outcomes);
    }

    public ValueTask CloseAsync()
    {
        _mirror.Leave(this);
        return InnerContext.CloseAllAsync(Volatile.Read(ref _legs).Select(leg => leg.Inner));
    }

    private static ExtentList Common(ExtentList one, ExtentList other)
    {
        var common = new ExtentList(one.Start, one.End, one.MetaContext);
        int i = 0;
        int j = 0;
        long at = one.Start;
        while (i < one.Count && j < other.Count)
        {
            long end = Math.Min(one[i].End, other[j].End);
            common.Add(at, end - at, one[i].Status & other[j].Status);
            at = end;
            i += one[i].End == end ? 1 : 0;
            j += other[j].End == end ? 1 : 0;
        }
        return common;
    }

    private static void Throw(Exception? failure)
    {
        if (failure is not null)
        {
            ExceptionDispatchInfo.Throw(failure);
        }
        throw new NbdException(NbdError.IoError, "no member of the mirror is in sync");
    }
}
