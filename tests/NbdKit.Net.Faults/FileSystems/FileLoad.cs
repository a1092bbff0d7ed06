using System.Collections.Concurrent;

namespace NbdKit.Faults.FileSystems;

/// <summary>Many small files: written, forced to the disk, renamed and deleted by several writers; and what must be there after it.</summary>
internal sealed class FileLoad(string root, int seed)
{
    private const int Writers = 4;
    private const int Folders = 7;
    private const int LargestFile = 48 << 10;

    // Of each file that was forced to the disk, what it holds.
    private readonly ConcurrentDictionary<string, int> _kept = [];
    private volatile bool _isOver;

    /// <summary>The files that must be there.</summary>
    public int Kept => _kept.Count;

    /// <summary>Writes so many files, or until writing fails because of <see cref="Over"/>.</summary>
    public Task RunAsync(int files)
        => Task.WhenAll(Enumerable.Range(0, Writers).Select(writer => Task.Factory.StartNew(
            () => Write(writer, files / Writers), CancellationToken.None, TaskCreationOptions.LongRunning, TaskScheduler.Default)));

    /// <summary>
    /// Nothing counts that is said to be on the disk from now on, and writing may fail: a file system that has lost its disk says yes
    /// to some things.
    /// </summary>
    public void Over() => _isOver = true;

    /// <summary>Fails unless every file that was forced to the disk is there, wherever it is mounted now.</summary>
    public void Check(string at)
    {
        foreach ((string path, int content) in _kept)
        {
            byte[] expected = ContentOf(content);
            string file = Path.Combine(at, path);
            if (!File.Exists(file))
            {
                throw new InvalidOperationException($"{path} was forced to the disk and is not there.");
            }
            if (!File.ReadAllBytes(file).AsSpan().SequenceEqual(expected))
            {
                throw new InvalidOperationException($"{path} was forced to the disk and holds something else.");
            }
        }
    }

    private static byte[] ContentOf(int content)
    {
        var random = new Random(content);
        byte[] bytes = new byte[random.Next(LargestFile)];
        random.NextBytes(bytes);
        return bytes;
    }

    private void Write(int writer, int files)
    {
        var random = new Random((seed * 31) + writer);
        var mine = new List<string>();
        try
        {
            for (int i = 0; i < files && !_isOver; i++)
            {
                string folder = $"w{writer}/{i % Folders}";
                Directory.CreateDirectory(Path.Combine(root, folder));
                Create($"{folder}/{i}", random.Next(), isForced: i % 2 == 0, mine);
                if (i % 11 == 10)
                {
                    Forget($"{folder}/{i}", mine);
                    File.Move(Path.Combine(root, $"{folder}/{i}"), Path.Combine(root, $"{folder}/{i}.moved"));
                }
                if (i % 5 == 4 && mine.Count > 0)
                {
                    string victim = mine[random.Next(mine.Count)];
                    Forget(victim, mine);
                    File.Delete(Path.Combine(root, victim));
                }
            }
        }
        catch (IOException) when (_isOver)
        {
            // The disk is gone, as it was meant to be.
        }
    }

    // Where it is after a loss is open from here on.
    private void Forget(string path, List<string> mine)
    {
        mine.Remove(path);
        _kept.TryRemove(path, out _);
    }

    private void Create(string path, int content, bool isForced, List<string> mine)
    {
        byte[] bytes = ContentOf(content);
        using var file = new FileStream(Path.Combine(root, path), FileMode.CreateNew, FileAccess.Write, FileShare.None, bufferSize: 0);
        file.Write(bytes);
        if (isForced)
        {
            file.Flush(flushToDisk: true);
            if (!_isOver)
            {
                _kept[path] = content;
                mine.Add(path);
            }
        }
    }
}
