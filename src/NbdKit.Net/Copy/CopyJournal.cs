namespace NbdKit.Copy;

/// <summary>The file that says which ranges of a copy are on stable storage. One copy at a time has it open.</summary>
internal sealed class CopyJournal : IDisposable
{
    private const long LargestFile = 1 << 28;

    private readonly string _path;
    private readonly FileStream _file;
    private byte[] _checksum;

    private CopyJournal(string path, FileStream file, byte[] checksum, RangeSet copied)
    {
        _path = path;
        _file = file;
        _checksum = checksum;
        Copied = copied;
    }

    /// <summary>What was on stable storage when it was opened.</summary>
    public RangeSet Copied { get; }

    /// <summary>Opens the journal of a copy, or creates it.</summary>
    /// <exception cref="NbdCopyException">It is no journal, it is that of another copy or in use by one, or the disk failed.</exception>
    public static CopyJournal Open(string path, in JournalIdentity identity)
    {
        try
        {
            var copied = new RangeSet();
            // Held until the new one is in its place, so that no other copy takes it meanwhile.
            using FileStream? old = OpenExisting(path);
            if (old is not null)
            {
                Read(old, path, identity, copied);
                if (OperatingSystem.IsWindows())
                {
                    // An open file cannot be replaced there.
                    old.Dispose();
                }
            }
            return Create(path, identity, copied);
        }
        catch (Exception e) when (e is IOException and not NbdCopyException or UnauthorizedAccessException)
        {
            throw new NbdCopyException(NbdCopyFault.Journal, 0, $"the journal {path} cannot be used: {e.Message}", e);
        }
    }

    /// <summary>Adds ranges that are on stable storage now.</summary>
    /// <exception cref="NbdCopyException">It cannot be written.</exception>
    public void Append(RangeSet ranges)
    {
        byte[] record = JournalFormat.Record(ranges.Ranges, _checksum);
        try
        {
            _file.Write(record);
            _file.Flush(flushToDisk: true);
        }
        catch (IOException e)
        {
            throw new NbdCopyException(NbdCopyFault.Journal, 0, $"the journal {_path} cannot be written: {e.Message}", e);
        }
        _checksum = JournalFormat.Checksum(record).ToArray();
    }

    /// <summary>Removes it: there is nothing to resume any more.</summary>
    /// <exception cref="NbdCopyException">It cannot be removed.</exception>
    public void Remove()
    {
        try
        {
            File.Delete(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new NbdCopyException(NbdCopyFault.Journal, 0, $"the journal {_path} cannot be removed: {e.Message}", e);
        }
    }

    public void Dispose() => _file.Dispose();

    private static FileStream? OpenExisting(string path)
    {
        try
        {
            return new FileStream(path, FileMode.Open, FileAccess.ReadWrite, FileShare.None, bufferSize: 0);
        }
        catch (FileNotFoundException)
        {
            return null;
        }
    }

    private static void Read(FileStream file, string path, in JournalIdentity identity, RangeSet copied)
    {
        if (file.Length > LargestFile)
        {
            throw NotAJournal(path);
        }
        byte[] data = new byte[file.Length];
        file.ReadExactly(data);
        int at = JournalFormat.ReadHeader(data, out JournalIdentity found);
        if (at == 0)
        {
            throw NotAJournal(path);
        }
        if (identity.Difference(found) is { } difference)
        {
            throw new NbdCopyException(
                NbdCopyFault.Journal, 0, $"the journal {path} belongs to another copy: {difference}; remove it to begin anew");
        }
        // A record that was not written to its end is as good as none: what it tells of is copied once more.
        while (JournalFormat.ReadRecord(
            data.AsSpan(at), JournalFormat.Checksum(data.AsSpan(0, at)), identity, copied) is > 0 and int length)
        {
            at += length;
        }
    }

    /// <summary>Writes it anew, in one record, and puts it into its place as a whole.</summary>
    private static CopyJournal Create(string path, in JournalIdentity identity, RangeSet copied)
    {
        string fresh = path + ".new";
        var file = new FileStream(fresh, FileMode.Create, FileAccess.ReadWrite, FileShare.None, bufferSize: 0);
        try
        {
            byte[] last = JournalFormat.Header(identity);
            file.Write(last);
            if (!copied.IsEmpty)
            {
                last = JournalFormat.Record(copied.Ranges, JournalFormat.Checksum(last));
                file.Write(last);
            }
            file.Flush(flushToDisk: true);
            if (OperatingSystem.IsWindows())
            {
                // An open file cannot be moved there.
                file.Dispose();
                File.Move(fresh, path, overwrite: true);
                file = new FileStream(path, FileMode.Append, FileAccess.Write, FileShare.None, bufferSize: 0);
            }
            else
            {
                File.Move(fresh, path, overwrite: true);
            }
            return new CopyJournal(path, file, JournalFormat.Checksum(last).ToArray(), copied);
        }
        catch
        {
            file.Dispose();
            throw;
        }
    }

    private static NbdCopyException NotAJournal(string path)
        => new(
            NbdCopyFault.Journal,
            0,
            $"the file {path} is not the journal of a copy, or its begin is damaged; remove it to begin anew");
}
