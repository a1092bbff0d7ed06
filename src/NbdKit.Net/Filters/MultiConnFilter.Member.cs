namespace NbdKit.Filters;

public sealed partial class MultiConnFilter
{
    /// <summary>One connection, and what was done on it since it was flushed last.</summary>
    private sealed class Member(Group group, NextContext next)
    {
        // Calls that have ended: all, and those that wrote. A flush cleans what it found when it began.
        private long _used;
        private long _written;
        private long _cleanUsed;
        private long _cleanWritten;
        private Exception? _lost;

        public Group Group { get; } = group;

        public NextContext Next { get; } = next;

        /// <summary>What the others had brought out when this one was flushed last. Belongs to the group's lock.</summary>
        public long Seen { get; set; }

        /// <summary>How often something written on this one was brought out. Belongs to the group's lock.</summary>
        public long Published { get; set; }

        public bool NeedsFlush => Volatile.Read(ref _written) > Volatile.Read(ref _cleanWritten);

        public bool WasUsed => Volatile.Read(ref _used) > Volatile.Read(ref _cleanUsed);

        public (long Used, long Written) Counts => (Volatile.Read(ref _used), Volatile.Read(ref _written));

        /// <summary>Why the writes of another connection were lost, to be told by the next flush.</summary>
        public Exception Lost
        {
            set => Volatile.Write(ref _lost, value);
        }

        public Exception? TakeLost() => Interlocked.Exchange(ref _lost, null);

        public void Note(bool isWrite)
        {
            Interlocked.Increment(ref _used);
            if (isWrite)
            {
                Interlocked.Increment(ref _written);
            }
        }

        /// <summary>Notes a flush, under the group's lock; returns whether it brought something out.</summary>
        public bool Clean(long used, long written, long seen)
        {
            bool published = written > _cleanWritten;
            Volatile.Write(ref _cleanUsed, Math.Max(_cleanUsed, used));
            Volatile.Write(ref _cleanWritten, Math.Max(_cleanWritten, written));
            Seen = Math.Max(Seen, seen);
            return published;
        }
    }
}
