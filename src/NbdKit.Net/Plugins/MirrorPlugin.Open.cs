using NbdKit.Layers;
using NbdKit.Plugins.Members;
using NbdKit.Plugins.Mirror;

namespace NbdKit.Plugins;

// Opening all members for a client, and what becomes of members that fail.
public sealed partial class MirrorPlugin
{
    /// <inheritdoc/>
    public async ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
    {
        ArgumentNullException.ThrowIfNull(context);
        var legs = new List<MirrorLeg>();
        try
        {
            while (true)
            {
                foreach (MirrorMember member in Members.Where(member => IsMissing(member, legs)))
                {
                    if (await TryOpenAsync(member, context, cancellationToken).ConfigureAwait(false) is { } leg)
                    {
                        legs.Add(leg);
                    }
                }
                lock (_lock)
                {
                    if (!_members.Any(member => IsMissing(member, legs)))
                    {
                        return Register(context, legs);
                    }
                }
            }
        }
        catch
        {
            await InnerContext.CloseAllAsync(legs.Select(leg => leg.Inner)).ConfigureAwait(false);
            throw;
        }
    }

    /// <summary>Takes a member out of use, unless it is the last one in sync; then returns false.</summary>
    internal bool Drop(MirrorMember member, Exception failure)
    {
        bool isNew;
        lock (_lock)
        {
            isNew = member.IsActive;
            if (!TryDrop(member, failure))
            {
                return false;
            }
        }
        if (isNew)
        {
            Report(member);
        }
        return true;
    }

    /// <summary>
    /// Decides about a change from how it went on each member. Throws what the client is to be told if it failed.
    /// </summary>
    internal void Settle(MirrorLeg[] legs, MirrorOutcome[] outcomes)
    {
        if (!outcomes.Any(outcome => outcome.Failure is not null) && legs.Any(IsInSync))
        {
            return;
        }
        var dropped = new List<MirrorMember>();
        Exception? failure = null;
        lock (_lock)
        {
            int good = Array.FindIndex(outcomes, 0, outcomes.Length, outcome => outcome is { TookPart: true, Failure: null });
            while (good >= 0 && !IsInSync(legs[good]))
            {
                good = Array.FindIndex(outcomes, good + 1, outcome => outcome is { TookPart: true, Failure: null });
            }
            int kept = good >= 0 ? good : Array.FindIndex(legs, IsInSync);
            if (good < 0)
            {
                failure = (kept < 0 ? null : outcomes[kept].Failure)
                    ?? new NbdException(NbdError.IoError, "no member of the mirror is in sync");
            }
            bool refused = good < 0 && outcomes.All(outcome => !outcome.TookPart || outcome.IsRefusal);
            for (int i = 0; i < legs.Length && !refused; i++)
            {
                // Without a good one, nobody knows what the others hold now.
                Exception? why = outcomes[i].TookPart ? outcomes[i].Failure ?? (good < 0 ? failure : null) : null;
                if (i != kept && why is not null && legs[i].Member.IsActive && TryDrop(legs[i].Member, why))
                {
                    dropped.Add(legs[i].Member);
                }
            }
        }
        dropped.ForEach(Report);
        if (failure is not null)
        {
            System.Runtime.ExceptionServices.ExceptionDispatchInfo.Throw(failure);
        }
    }

    private static bool IsInSync(MirrorLeg leg) => leg.Member.State == MirrorMemberState.InSync;

    private static bool IsMissing(MirrorMember member, List<MirrorLeg> legs)
        => member.IsActive && !legs.Any(leg => leg.Member == member);

    private MirrorDisk Register(NbdOpenContext context, List<MirrorLeg> legs)
    {
        // Those of members that were dropped meanwhile are closed with the others.
        MirrorLeg[] ordered = [.. legs.OrderBy(leg => Array.IndexOf(_members, leg.Member))];
        NbdExportInfo[] infos = [.. ordered.Where(leg => leg.Member.IsActive).Select(leg => leg.Inner.Info)];
        NbdExportInfo info = CombinedInfo.Of(infos, _size) with { CanTrim = infos.All(one => one.CanTrim) };
        var disk = new MirrorDisk(this, context, info, ordered);
        _disks.Add(disk);
        return disk;
    }

    /// <summary>Opens a member for a client. One that fails is dropped, and null comes back.</summary>
    private async ValueTask<MirrorLeg?> TryOpenAsync(
        MirrorMember member, NbdOpenContext context, CancellationToken cancellationToken)
    {
        InnerContext? inner = null;
        try
        {
            inner = await OpenAsync(member.Chain, context.ReadOnly, context.Connection, cancellationToken)
                .ConfigureAwait(false);
            return new MirrorLeg(member, inner);
        }
        catch (Exception e) when (!cancellationToken.IsCancellationRequested)
        {
            var outcome = new MirrorOutcome { Failure = e };
            if (member.IsActive && (outcome.IsRefusal || !Drop(member, e)))
            {
                throw;
            }
            return null;
        }
    }

    /// <summary>Opens a chain, and checks that it is as large as a member must be.</summary>
    private async ValueTask<InnerContext> OpenAsync(
        NbdBackend chain, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        InnerContext inner = await InnerContext.OpenAsync(chain, Holder, readOnly, "", connection, cancellationToken)
            .ConfigureAwait(false);
        long size = inner.Info.Size;
        if (size == _size || (size > _size && _size % CombinedInfo.MinimumBlock([inner.Info]) == 0))
        {
            return inner;
        }
        await inner.CloseAsync().ConfigureAwait(false);
        throw new InvalidOperationException($"its {size} bytes do not hold the {_size} bytes of the mirror");
    }

    private bool TryDrop(MirrorMember member, Exception failure)
    {
        if (!member.IsActive)
        {
            return true;
        }
        if (member.State == MirrorMemberState.InSync
            && !_members.Any(other => other != member && other.State == MirrorMemberState.InSync))
        {
            return false;
        }
        member.Fail(failure);
        return true;
    }

    private void Report(MirrorMember member)
    {
        if (member.State == MirrorMemberState.Failed)
        {
            int left = Members.Count(one => one.State == MirrorMemberState.InSync);
            MirrorLog.MemberFailed(Holder.Logger, member.Chain.Name, left, member.Failure!);
        }
        else if (member.State == MirrorMemberState.InSync)
        {
            MirrorLog.MemberInSync(Holder.Logger, member.Chain.Name);
        }
        try
        {
            MemberChanged?.Invoke(member);
        }
        catch (Exception e)
        {
            MirrorLog.HookFailed(Holder.Logger, e);
        }
    }
}
