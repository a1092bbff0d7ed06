using Microsoft.Win32.SafeHandles;
using NbdKit.Native;

namespace NbdKit.Plugins;

/// <summary>
/// Keeps what is written out of the page cache. The kernel can only drop clean pages, so each write is started on its way to
/// the disk at once, and waited for and dropped when a few more have followed.
/// </summary>
/// <remarks>May block; meant for the thread pool. Only where <see cref="LinuxFile.IsAvailable"/>.</remarks>
internal sealed class WriteEviction(SafeFileHandle file, Action<int> noteLoss)
{
    private const int Delay = 8;

    private readonly Queue<(long Offset, long Length)> _writing = new(Delay + 1);
    private readonly Lock _lock = new();

    /// <summary>Called after each write.</summary>
    public void Written(long offset, long length)
    {
        Note(LinuxFile.StartWriteback(file, offset, length));
        (long Offset, long Length) oldest;
        lock (_lock)
        {
            _writing.Enqueue((offset, length));
            if (_writing.Count <= Delay)
            {
                return;
            }
            oldest = _writing.Dequeue();
        }
        Evict(oldest);
    }

    /// <summary>Called after the last write.</summary>
    public void Finish()
    {
        while (_writing.TryDequeue(out (long Offset, long Length) range))
        {
            Evict(range);
        }
    }

    private void Evict((long Offset, long Length) range)
    {
        Note(LinuxFile.WaitForWriteback(file, range.Offset, range.Length));
        LinuxFile.Advise(file, range.Offset, range.Length, LinuxFile.AdviceDontNeed);
    }

    private void Note(int error)
    {
        // To be told here uses up the error: fdatasync would not report it again.
        if (error is Errno.IoError or Errno.NoSpace or Errno.QuotaExceeded)
        {
            noteLoss(error);
        }
    }
}
