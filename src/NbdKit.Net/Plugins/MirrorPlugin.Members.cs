using NbdKit.Layers;
using NbdKit.Plugins.Mirror;

namespace NbdKit.Plugins;

// Members that come and go while clients are served.
public sealed partial class MirrorPlugin
{
    /// <summary>
    /// Adds a member while clients are served. It is opened for each of them, takes every change from then on, and gets all
    /// else in the background; <see cref="MirrorMember.InSync"/> of what is returned completes when it has everything.
    /// </summary>
    /// <param name="chain">
    /// The outermost layer of its chain. What it holds is overwritten. It belongs to the plugin from now on: if it cannot be
    /// added, it ends unless somebody else uses it.
    /// </param>
    /// <param name="cancellationToken">Gives up adding it; does not stop the resync once it has begun.</param>
    /// <exception cref="ArgumentException">It is a member already, or takes only one connection at a time.</exception>
    /// <exception cref="InvalidOperationException">
    /// The plugin is not running, or the chain is too small, read-only, or does not offer what a client was told of.
    /// </exception>
    public async ValueTask<MirrorMember> AddAsync(NbdBackend chain, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(chain);
        RequireConnections(chain);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _stopping.Token);
        await _changing.WaitAsync(linked.Token).ConfigureAwait(false);
        try
        {
            RequireRunning();
            if (Members.Any(member => member.Chain == chain))
            {
                throw new ArgumentException(
                    $"mirror: the chain of {chain.Name} is a member already; one that failed is recovered.", nameof(chain));
            }
            return await AddMemberAsync(chain, linked.Token).ConfigureAwait(false);
        }
        finally
        {
            _changing.Release();
        }
    }

    /// <summary>
    /// Takes a member out while clients are served: waits for what is in flight on it, closes it, and ends its chain unless
    /// somebody else uses it.
    /// </summary>
    /// <param name="member">The member.</param>
    /// <param name="cancellationToken">Gives up waiting for another change of the members.</param>
    /// <exception cref="ArgumentException">It is not a member.</exception>
    /// <exception cref="InvalidOperationException">It is the last one in sync.</exception>
    public async ValueTask RemoveAsync(MirrorMember member, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(member);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _stopping.Token);
        await _changing.WaitAsync(linked.Token).ConfigureAwait(false);
        try
        {
            await RemoveMemberAsync(member).ConfigureAwait(false);
        }
        finally
        {
            _changing.Release();
        }
    }

    /// <summary>
    /// Takes a member that failed back into use: closes what is open of it, opens it again for each client, and brings it
    /// in sync in the background.
    /// </summary>
    /// <param name="member">The member that failed. It is replaced by the one that is returned.</param>
    /// <param name="cancellationToken">Gives up; the member is no longer part of the mirror then.</param>
    /// <returns>The member as it is now, for the same chain.</returns>
    /// <exception cref="ArgumentException">It is not a member.</exception>
    /// <exception cref="InvalidOperationException">
    /// It has not failed; or it cannot be added any more, for the reasons of <see cref="AddAsync"/>, and is no longer part of
    /// the mirror.
    /// </exception>
    public async ValueTask<MirrorMember> RecoverAsync(MirrorMember member, CancellationToken cancellationToken = default)
    {
        ArgumentNullException.ThrowIfNull(member);
        using var linked = CancellationTokenSource.CreateLinkedTokenSource(cancellationToken, _stopping.Token);
        await _changing.WaitAsync(linked.Token).ConfigureAwait(false);
        try
        {
            RequireRunning();
            if (!Members.Contains(member))
            {
                throw new ArgumentException("mirror: this is not a member.", nameof(member));
            }
            if (member.State != MirrorMemberState.Failed)
            {
                throw new InvalidOperationException("mirror: only a member that failed can be recovered.");
            }
            // Keeps the chain alive in between.
            await member.Chain.AcquireAsync(Holder.LoggerFactory, host: false, linked.Token).ConfigureAwait(false);
            try
            {
                await RemoveMemberAsync(member).ConfigureAwait(false);
                return await AddMemberAsync(member.Chain, linked.Token).ConfigureAwait(false);
            }
            finally
            {
                await member.Chain.ReleaseAsync(host: false, CancellationToken.None).ConfigureAwait(false);
            }
        }
        finally
        {
            _changing.Release();
        }
    }

    private async ValueTask<MirrorMember> AddMemberAsync(NbdBackend chain, CancellationToken cancellationToken)
    {
        try
        {
            await chain.AcquireAsync(Holder.LoggerFactory, host: false, cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            await chain.DiscardAsync().ConfigureAwait(false);
            throw;
        }
        var member = new MirrorMember(chain, MirrorMemberState.Resyncing);
        var legs = new Dictionary<MirrorDisk, MirrorLeg?>();
        try
        {
            InnerContext probe = await OpenAsync(chain, readOnly: false, null, cancellationToken).ConfigureAwait(false);
            bool canWrite = probe.Info.CanWrite;
            await probe.CloseAsync().ConfigureAwait(false);
            if (!canWrite)
            {
                throw new InvalidOperationException("it cannot be written to");
            }
            while (!TryAttach(member, legs))
            {
                foreach (MirrorDisk disk in Disks().Where(disk => !legs.ContainsKey(disk)))
                {
                    legs[disk] = await OpenForAsync(disk, member, cancellationToken).ConfigureAwait(false);
                }
            }
        }
        catch (Exception e)
        {
            await CloseAsync(legs.Values).ConfigureAwait(false);
            await chain.ReleaseAsync(host: false, CancellationToken.None).ConfigureAwait(false);
            throw e is OperationCanceledException && cancellationToken.IsCancellationRequested
                ? new OperationCanceledException(e.Message, e, cancellationToken)
                : new InvalidOperationException($"The chain of {chain.Name} cannot join the mirror: {e.Message}", e);
        }
        _started.Add(chain);
        BeginResync(member);
        // Those of clients that left meanwhile.
        await CloseAsync(legs.Where(pair => pair.Key.Leg(member) is null).Select(pair => pair.Value)).ConfigureAwait(false);
        return member;
    }

    private async ValueTask RemoveMemberAsync(MirrorMember member)
    {
        var legs = new List<MirrorLeg?>();
        lock (_lock)
        {
            if (!_members.Contains(member))
            {
                throw new ArgumentException("mirror: this is not a member.", nameof(member));
            }
            if (member.State == MirrorMemberState.InSync
                && _members.Count(one => one.State == MirrorMemberState.InSync) == 1)
            {
                throw new InvalidOperationException("mirror: the last member in sync cannot be removed.");
            }
            Volatile.Write(ref _members, [.. _members.Where(one => one != member)]);
            member.Remove();
            legs.AddRange(_disks.Select(disk => disk.Detach(member)));
        }
        await member.StopResyncAsync().ConfigureAwait(false);
        await CloseAsync(legs).ConfigureAwait(false);
        _started.Remove(member.Chain);
        await member.Chain.ReleaseAsync(host: false, CancellationToken.None).ConfigureAwait(false);
    }

    /// <summary>Opens a new member for a client that is there, or returns null if the client is as good as gone.</summary>
    private async ValueTask<MirrorLeg?> OpenForAsync(
        MirrorDisk disk, MirrorMember member, CancellationToken cancellationToken)
    {
        InnerContext? inner = null;
        try
        {
            inner = await OpenAsync(member.Chain, disk.Context.ReadOnly, disk.Context.Connection, cancellationToken)
                .ConfigureAwait(false);
            // The depth of allocation is found out from the extents of a member that does not know it.
            NbdExportInfo told = disk.Info with
            {
                MetaContexts = [.. disk.Info.MetaContexts.Where(name => name != ExtentList.AllocationDepth)],
            };
            return InfoLoss.Find(told, inner.Info) is not { } loss
                ? new MirrorLeg(member, inner)
                : throw new InvalidOperationException(loss);
        }
        catch
        {
            if (inner is not null)
            {
                await inner.CloseAsync().ConfigureAwait(false);
            }
            if (!Disks().Contains(disk))
            {
                return null;
            }
            throw;
        }
    }

    /// <summary>Takes a member in for all clients at once; false if another one has come meanwhile.</summary>
    private bool TryAttach(MirrorMember member, Dictionary<MirrorDisk, MirrorLeg?> legs)
    {
        lock (_lock)
        {
            if (_disks.Any(disk => !legs.ContainsKey(disk)))
            {
                return false;
            }
            foreach (MirrorDisk disk in _disks)
            {
                disk.Attach(legs[disk]!);
            }
            Volatile.Write(ref _members, [.. _members, member]);
            return true;
        }
    }

    private MirrorDisk[] Disks()
    {
        lock (_lock)
        {
            return [.. _disks];
        }
    }

    private static ValueTask CloseAsync(IEnumerable<MirrorLeg?> legs)
        => InnerContext.CloseAllAsync(legs.OfType<MirrorLeg>().Select(leg => leg.Inner));

    private void RequireRunning()
    {
        if (!_running)
        {
            throw new InvalidOperationException("mirror: the plugin is not running.");
        }
    }
}
