using NbdKit.Native;

namespace NbdKit.Buffers;

internal sealed partial class SparseFile
{
    // As much as one read asks about.
    private const long InlineExtents = 32 << 20;

    private readonly InlinePace _extentsPace = new(TimeProvider.System);

    /// <summary>Adds to the list what a range is made of: holes, which read as zeroes, and data.</summary>
    /// <param name="offset">First byte; the start of the list's window.</param>
    /// <param name="length">Number of bytes. The last extent may go beyond.</param>
    /// <param name="onlyFirst">Whether the first extent is enough.</param>
    /// <param name="extents">Receives the extents.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">The device failed.</exception>
    public async ValueTask ExtentsAsync(
        long offset, long length, bool onlyFirst, ExtentList extents, CancellationToken cancellationToken)
    {
        // Finding a hole may read metadata from the device, and a file may have very many.
        long started = 0;
        bool here = length <= InlineExtents && _extentsPace.TryBegin(out started);
        if (!here)
        {
            await Hop();
        }
        try
        {
            Find(offset, length, onlyFirst, extents, cancellationToken);
        }
        finally
        {
            if (here)
            {
                _extentsPace.End(started);
            }
        }
    }

    private void Find(long offset, long length, bool onlyFirst, ExtentList extents, CancellationToken cancellationToken)
    {
        long end = offset + length;
        while (offset < end && !extents.IsFull)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long data = NextData(offset);
            if (data > offset)
            {
                extents.Add(offset, data - offset, ExtentStatus.Hole | ExtentStatus.Zero);
                offset = data;
            }
            else
            {
                long hole = NextHole(offset);
                extents.Add(offset, hole - offset, ExtentStatus.Data);
                offset = hole;
            }
            if (onlyFirst)
            {
                return;
            }
        }
    }

    // The seeks only return a position: the one that they set is not used, so that they need no lock.
    private long NextData(long offset)
    {
        int error = LinuxFile.NextData(Handle, offset, out long data);
        if (error == 0)
        {
            return Math.Min(data, Size);
        }
        if (error != Errno.NoSuchAddress)
        {
            throw FileErrors.FromErrno(error, "cannot find the next data");
        }
        // A hole up to the end, unless the file has become shorter: what is beyond cannot be read, so it is no zeroes.
        return LinuxFile.Size(Handle, out long size) == 0 ? Math.Clamp(size, offset, Size) : offset;
    }

    private long NextHole(long offset)
    {
        int error = LinuxFile.NextHole(Handle, offset, out long hole);
        if (error is not (0 or Errno.NoSuchAddress))
        {
            throw FileErrors.FromErrno(error, "cannot find the next hole");
        }
        // Beyond the end, or punched meanwhile: to call it data is always right.
        return error == 0 && hole > offset ? Math.Min(hole, Size) : Size;
    }
}
