namespace NbdKit.Filters;

// The connections that are flushed together.
public sealed partial class MultiConnFilter
{
    private readonly Lock _lock = new();
    private readonly Dictionary<string, Group> _groups = new(StringComparer.Ordinal);

    private Member Join(NextContext next, string exportName)
    {
        string name = ByExportName ? exportName : "";
        lock (_lock)
        {
            if (!_groups.TryGetValue(name, out Group? group))
            {
                _groups.Add(name, group = new Group(name));
            }
            var member = new Member(group, next);
            group.Add(member);
            return member;
        }
    }

    /// <summary>Takes a connection out of its group, with nothing left to flush on it.</summary>
    private async ValueTask LeaveAsync(Member member, CancellationToken cancellationToken)
    {
        Group group = member.Group;
        try
        {
            if (member.NeedsFlush)
            {
                await group.FlushOneAsync(member, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception e)
        {
            group.ReportLoss(member, e);
            throw;
        }
        finally
        {
            // Until now a flush on another connection included this one. One that still runs holds the context below, which is
            // not finalized before that.
            lock (_lock)
            {
                if (group.Remove(member))
                {
                    _groups.Remove(group.Name);
                }
            }
        }
    }

    private sealed class Group(string name)
    {
        private readonly Lock _lock = new();
        private readonly List<Member> _members = [];

        // How often something written was brought out on any connection, also on those that have ended.
        private long _published;

        public string Name { get; } = name;

        public void Add(Member member)
        {
            lock (_lock)
            {
                member.Seen = _published;
                _members.Add(member);
            }
        }

        /// <summary>Returns whether it was the last.</summary>
        public bool Remove(Member member)
        {
            lock (_lock)
            {
                _members.Remove(member);
                return _members.Count == 0;
            }
        }

        public void ReportLoss(Member lost, Exception failure)
        {
            foreach (Member member in Choose(member => member != lost))
            {
                member.Lost = failure;
            }
        }

        public async ValueTask FlushAsync(Member own, MultiConnTracking tracking, CancellationToken cancellationToken)
        {
            Member[] first = Choose(member => member.NeedsFlush);
            if (tracking == MultiConnTracking.Off || (tracking == MultiConnTracking.Fast && first.Length > 0))
            {
                first = Choose(_ => true);
            }
            await FlushManyAsync(first, cancellationToken).ConfigureAwait(false);
            // What was used while the first ones were under way, or not flushed at all, may be older than what these brought out.
            await FlushManyAsync(Choose(IsStale), cancellationToken).ConfigureAwait(false);
            if (own.TakeLost() is { } lost)
            {
                throw new NbdException(
                    NbdError.IoError, "what was written on a connection that has ended could not be flushed", lost);
            }
        }

        public async Task FlushOneAsync(Member member, CancellationToken cancellationToken)
        {
            (long used, long written) = member.Counts;
            long seen;
            lock (_lock)
            {
                seen = _published - member.Published;
            }
            if (!member.Next.TryEnter())
            {
                // Its connection has ended since, and has seen to it itself.
                return;
            }
            try
            {
                await member.Next.FlushAsync(cancellationToken).ConfigureAwait(false);
            }
            finally
            {
                member.Next.Leave();
            }
            lock (_lock)
            {
                if (member.Clean(used, written, seen))
                {
                    _published++;
                    member.Published++;
                }
            }
        }

        private Task FlushManyAsync(Member[] members, CancellationToken cancellationToken)
            => Task.WhenAll(members.Select(member => FlushOneAsync(member, cancellationToken)));

        private bool IsStale(Member member) => member.WasUsed && _published - member.Published > member.Seen;

        private Member[] Choose(Func<Member, bool> isChosen)
        {
            lock (_lock)
            {
                return [.. _members.Where(isChosen)];
            }
        }
    }
}
