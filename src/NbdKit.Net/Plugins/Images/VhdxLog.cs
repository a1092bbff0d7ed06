namespace NbdKit.Plugins.Images;

/// <summary>
/// The log of an image that was not closed ("VHDX Format Specification", 2.3): a ring of entries, of which the newest ones, as
/// many as follow each other without a gap, are changes that may not be in place yet.
/// </summary>
internal sealed class VhdxLog
{
    // A log has 1 MiB as a rule. All of it is read at once.
    private const int MostBytes = 8 << 20;
    private const long Mebibyte = 1 << 20;

    // An entry is looked at once. Only a log that was made to take time has entries that overlap each other often.
    private const int MostPasses = 4;

    private readonly byte[] _bytes;
    private readonly Guid _id;
    private readonly VhdxLogEntry?[] _entries;
    private readonly bool[] _wasRead;
    private long _budget;

    private VhdxLog(byte[] bytes, Guid id)
    {
        _bytes = bytes;
        _id = id;
        _entries = new VhdxLogEntry?[bytes.Length / VhdxLogEntry.Sector];
        _wasRead = new bool[_entries.Length];
        _budget = (long)MostPasses * bytes.Length;
    }

    /// <summary>Replays the log, into memory: the view has the changes from then on.</summary>
    /// <exception cref="NbdException">There is nothing in the log that can be replayed (EINVAL).</exception>
    public static async ValueTask ReplayAsync(MappedView view, VhdxHeader header, CancellationToken cancellationToken)
    {
        if (header.LogVersion != 0)
        {
            throw Refused($"it has the version {header.LogVersion}, which is not known");
        }
        if (header.LogLength is 0 or > MostBytes || header.LogLength % Mebibyte != 0)
        {
            throw Refused($"it has {header.LogLength} bytes; whole mebibytes up to {MostBytes} bytes are possible");
        }
        if (header.LogAt is < Mebibyte or > long.MaxValue || header.LogAt % Mebibyte != 0 || !view.Has((long)header.LogAt, header.LogLength))
        {
            throw Refused($"it is at {header.LogAt}, which is not inside the {view.Size} bytes of the image");
        }
        byte[] bytes = new byte[header.LogLength];
        await view.ReadAsync((long)header.LogAt, bytes, cancellationToken).ConfigureAwait(false);
        IReadOnlyList<VhdxLogEntry> entries = new VhdxLog(bytes, header.LogId).Newest(cancellationToken);
        if (entries.Count == 0)
        {
            throw Refused("it has no entry that is whole");
        }
        long size = entries.Max(entry => entry.FlushedSize);
        if (size > view.Size)
        {
            throw Refused($"the image had {size} bytes when it was written, and has {view.Size}");
        }
        view.Change(new VhdxOverlay([.. entries.SelectMany(entry => entry.Changes)]), entries.Max(entry => entry.FileSize));
    }

    private static NbdException Refused(string why) => new(
        NbdError.InvalidArgument, $"the VHDX image was not closed, and the changes in its log cannot be put in place: {why}");

    /// <summary>The entries to replay, the oldest first.</summary>
    private IReadOnlyList<VhdxLogEntry> Newest(CancellationToken cancellationToken)
    {
        List<VhdxLogEntry> newest = [];
        var run = new List<VhdxLogEntry>();
        for (long start = 0; start < _bytes.Length;)
        {
            cancellationToken.ThrowIfCancellationRequested();
            run.Clear();
            long length = 0;
            while (length < _bytes.Length && EntryAt((int)((start + length) % _bytes.Length)) is { } entry
                && length + entry.Length <= _bytes.Length && (run.Count == 0 || entry.Sequence == run[^1].Sequence + 1))
            {
                run.Add(entry);
                length += entry.Length;
            }
            int oldest = run.Count == 0 ? -1 : run.FindLastIndex(entry => entry.At == run[^1].Tail);
            if (oldest >= 0 && (newest.Count == 0 || run[^1].Sequence > newest[^1].Sequence))
            {
                newest = run[oldest..];
            }
            start += oldest >= 0 ? length : VhdxLogEntry.Sector;
        }
        return newest;
    }

    private VhdxLogEntry? EntryAt(int position)
    {
        int number = position / VhdxLogEntry.Sector;
        if (!_wasRead[number])
        {
            _wasRead[number] = true;
            ReadOnlySpan<byte> start = _bytes.AsSpan(position);
            if (VhdxLogEntry.TryGetLength(start, _id, out uint length) && length <= _bytes.Length)
            {
                _budget -= length;
                if (_budget < 0)
                {
                    throw Refused("its entries overlap each other");
                }
                // It may begin at the end of the log and go on at the beginning.
                _entries[number] = VhdxLogEntry.Parse(
                    position, start.Length >= length ? start[..(int)length] : [.. start, .. _bytes.AsSpan(0, (int)length - start.Length)]);
            }
        }
        return _entries[number];
    }
}
