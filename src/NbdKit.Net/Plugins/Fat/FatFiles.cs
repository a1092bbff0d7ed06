using System.Runtime.CompilerServices;
using NbdKit.Buffers;
using NbdKit.Native;

namespace NbdKit.Plugins.Fat;

/// <summary>Reads files, the last few of which stay open. Safe under parallel calls.</summary>
internal sealed class FatFiles
{
    private const int MaximumOpen = 16;

    private readonly Lock _lock = new();
    private readonly List<OpenFile> _open = [];

    /// <summary>Fills the whole buffer; at once if the file is open and the page cache holds the range.</summary>
    /// <exception cref="NbdException">
    /// The file is not what it was, has become shorter than the range, or cannot be read.
    /// </exception>
    public ValueTask ReadAsync(FatNode node, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (Find(node) is not { } file)
        {
            return OpenAndReadAsync(node, buffer, offset, cancellationToken);
        }
        ValueTask read = file.File.ReadAsync(buffer, offset, cancellationToken);
        if (!read.IsCompletedSuccessfully)
        {
            return FinishAsync(file, read);
        }
        read.GetAwaiter().GetResult();
        Release(file);
        return default;
    }

    /// <summary>Closes the files. No reads run any more.</summary>
    public void Close()
    {
        foreach (OpenFile file in _open)
        {
            file.File.Dispose();
        }
        _open.Clear();
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask OpenAndReadAsync(
        FatNode node, Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        await Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
        cancellationToken.ThrowIfCancellationRequested();
        OpenFile file = Find(node) ?? Add(new OpenFile(node, Open(node)));
        await FinishAsync(file, file.File.ReadAsync(buffer, offset, cancellationToken)).ConfigureAwait(false);
    }

    [AsyncMethodBuilder(typeof(PoolingAsyncValueTaskMethodBuilder))]
    private async ValueTask FinishAsync(OpenFile file, ValueTask read)
    {
        try
        {
            await read.ConfigureAwait(false);
        }
        finally
        {
            Release(file);
        }
    }

    private static SparseFile Open(FatNode node)
    {
        SparseFile file = SparseFile.Open(node.Path, readOnly: true, followLinks: false, FileOptions.None);
        // A directory on the way may have become a link, or another file may have been put there.
        if (file.IsBlockDevice
            || (file.IsNative && (LinuxFile.Stat(file.Handle, out FileFacts facts) != 0 || !facts.IsSameFile(node.Facts))))
        {
            file.Dispose();
            throw new NbdException(NbdError.IoError, "a file was replaced while the disk is served");
        }
        return file;
    }

    private OpenFile? Find(FatNode node)
    {
        lock (_lock)
        {
            int index = _open.Count - 1;
            while (index >= 0 && _open[index].Node != node)
            {
                index--;
            }
            if (index < 0)
            {
                return null;
            }
            OpenFile file = _open[index];
            // The one used last stands last.
            _open.RemoveAt(index);
            _open.Add(file);
            file.Users++;
            return file;
        }
    }

    private OpenFile Add(OpenFile opened)
    {
        lock (_lock)
        {
            opened.Users++;
            if (_open.Count == MaximumOpen)
            {
                OpenFile oldest = _open[0];
                _open.RemoveAt(0);
                oldest.IsDropped = true;
                if (oldest.Users == 0)
                {
                    oldest.File.Dispose();
                }
            }
            // Two may have opened it at once: then it is open twice for a while.
            _open.Add(opened);
            return opened;
        }
    }

    private void Release(OpenFile file)
    {
        lock (_lock)
        {
            file.Users--;
            if (file.IsDropped && file.Users == 0)
            {
                file.File.Dispose();
            }
        }
    }

    private sealed class OpenFile(FatNode node, SparseFile file)
    {
        public FatNode Node { get; } = node;

        public SparseFile File { get; } = file;

        public int Users { get; set; }

        public bool IsDropped { get; set; }
    }
}
