using Microsoft.Win32.SafeHandles;
using NbdKit.Native;

namespace NbdKit.Buffers;

/// <summary>
/// Ranges of a file or block device: read, written, given up, zeroed, mapped and synced. Safe under parallel calls; overlapping
/// calls are the caller's to order.
/// </summary>
/// <remarks>
/// What the page cache holds is read at once on the caller's thread, all else on the thread pool. Small writes are made on the
/// caller's thread for as long as they go to the page cache without waiting (<see cref="InlinePace"/>). What a file system
/// turned out not to support is not tried again on the same handle.
/// </remarks>
internal sealed partial class SparseFile : IDisposable
{
    /// <summary>The largest transfer that is tried on the caller's thread, where the kernel can say that it would block.</summary>
    public const int InlineBytes = 256 << 10;

    // Writes that could block: copying more than this takes longer than handing it over, and others can use the time.
    private const int InlineWriteBytes = 64 << 10;

    private readonly FileLoss _loss;

    /// <summary>Takes over an open handle.</summary>
    /// <param name="handle">The handle, from now on owned by this object.</param>
    /// <param name="canWrite">Whether it was opened for writing.</param>
    /// <param name="native">Whether to use the system calls of <see cref="LinuxFile"/>.</param>
    /// <param name="loss">What was lost through the handle before; null if nothing was.</param>
    /// <exception cref="NbdException">The size is not known, or the handle is neither of a file nor of a block device.</exception>
    public SparseFile(SafeFileHandle handle, bool canWrite, bool native, FileLoss? loss = null)
    {
        Handle = handle;
        _loss = loss ?? new FileLoss();
        CanWrite = canWrite;
        IsNative = native;
        _canPunch = _canZeroRange = _canAllocate = _canDiscard = _canZeroOut = native && canWrite;
        _canReadNow = _canWriteNow = native;
        try
        {
            if (native)
            {
                AskLinux();
            }
            else
            {
                Size = RandomAccess.GetLength(handle);
            }
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            throw FileErrors.FromException(e, "cannot find the size of the file");
        }
    }

    public SafeFileHandle Handle { get; }

    public bool CanWrite { get; private set; }

    /// <summary>The size in bytes when it was opened, or as it was grown to; calls stay below it.</summary>
    public long Size { get; private set; }

    public bool IsBlockDevice { get; private set; }

    /// <summary>
    /// Whether the system calls of Linux are used; without them <see cref="TrimAsync"/> and <see cref="CacheAsync"/> do nothing,
    /// and <see cref="ZeroAsync"/> is not supported.
    /// </summary>
    public bool IsNative { get; }

    /// <summary>Whether <see cref="ExtentsAsync"/> may be called.</summary>
    public bool CanExtents { get; private set; }

    /// <summary>Brings all completed changes to stable storage, those made through other handles of the file included.</summary>
    public async ValueTask FlushAsync(CancellationToken cancellationToken)
    {
        await Hop();
        cancellationToken.ThrowIfCancellationRequested();
        Sync();
    }

    /// <summary>Hints that a range will be read soon.</summary>
    public async ValueTask CacheAsync(long offset, long length, CancellationToken cancellationToken)
    {
        if (IsNative)
        {
            await Hop();
            cancellationToken.ThrowIfCancellationRequested();
            LinuxFile.Advise(Handle, offset, length, LinuxFile.AdviceWillNeed);
        }
    }

    /// <summary>
    /// Notes that written data was found not to have reached the device: no later flush may claim that it did.
    /// </summary>
    public void NoteLoss(int error) => _loss.Note(FileErrors.FromErrno(error, "written data did not reach the disk"));

    public void Dispose()
    {
        Handle.Dispose();
        Interlocked.Exchange(ref _lender, null)?.DangerousRelease();
    }

    private void AskLinux()
    {
        if (LinuxFile.Stat(Handle, out FileFacts facts) is int error and not 0)
        {
            throw FileErrors.FromErrno(error, "cannot ask what kind of file it is");
        }
        RequireDisk(facts);
        IsBlockDevice = facts.IsBlockDevice;
        CanWrite &= !IsBlockDevice || !LinuxFile.IsReadOnly(Handle);
        error = LinuxFile.Size(Handle, out long size);
        if (error != 0)
        {
            throw FileErrors.FromErrno(error, "cannot find the size of the file");
        }
        Size = size;
        // An empty file has no hole to find, which says nothing about its file system.
        CanExtents = LinuxFile.NextHole(Handle, 0, out _) is 0 or Errno.NoSuchAddress;
    }

    /// <summary>On the thread pool: syncs the data, or fails as the first failure of the handle did.</summary>
    private void Sync()
    {
        // The kernel reports data that it could not write once, and then forgets that it was ever dirty.
        NbdException? lost = _loss.First;
        if (lost is null)
        {
            lost = TrySync();
            _loss.Note(lost);
        }
        if (lost is not null)
        {
            throw new NbdException(lost.Error, lost.Message, lost);
        }
    }

    private NbdException? TrySync()
    {
        if (IsNative)
        {
            int error = LinuxFile.Flush(Handle);
            return error == 0 ? null : FileErrors.FromErrno(error, "cannot flush");
        }
        try
        {
            RandomAccess.FlushToDisk(Handle);
            return null;
        }
        catch (Exception e) when (FileErrors.IsFileFailure(e))
        {
            return FileErrors.FromException(e, "cannot flush");
        }
    }

    /// <summary>Goes on on the thread pool, without allocating.</summary>
    private static System.Runtime.CompilerServices.ConfiguredTaskAwaitable Hop()
        => Task.CompletedTask.ConfigureAwait(ConfigureAwaitOptions.ForceYielding);
}
