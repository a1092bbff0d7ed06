using NbdKit.Native;

namespace NbdKit.Buffers;

// A range is given up or zeroed by the first way that the file takes. A way that failed for good is not tried again.
internal sealed partial class SparseFile
{
    // A block device may have to write the zeroes: it does so in pieces, between which a request can be given up.
    private const long DevicePiece = 1L << 30;

    // Benign races: at worst a call that fails is made once more.
    private bool _canPunch;
    private bool _canZeroRange;
    private bool _canAllocate;
    private bool _canDiscard;
    private bool _canZeroOut;

    /// <summary>
    /// Gives up the content of a range and the space behind it, as far as the file can: what it reads afterwards is undefined.
    /// </summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="durable">Whether to sync before completing.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">The device failed.</exception>
    public ValueTask TrimAsync(long offset, long length, bool durable, CancellationToken cancellationToken)
        => _canPunch || (IsBlockDevice && _canDiscard) || durable
            ? TrimOnPoolAsync(offset, length, durable, cancellationToken)
            : default;

    /// <summary>Makes a range read as zeroes without writing them.</summary>
    /// <param name="offset">First byte.</param>
    /// <param name="length">Number of bytes.</param>
    /// <param name="flags">
    /// <see cref="RequestFlags.MayTrim"/>: the space may be given up; without it the range is allocated afterwards.
    /// <see cref="RequestFlags.FastZero"/>: only if it is fast. <see cref="RequestFlags.Fua"/>: syncs before completing.
    /// </param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="NbdException">
    /// The device failed; <see cref="NbdError.NotSupported"/> if zeroes have to be written.
    /// </exception>
    public ValueTask ZeroAsync(long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
        => _canPunch || _canZeroRange || (IsBlockDevice && _canZeroOut)
            ? ZeroOnPoolAsync(offset, length, flags, cancellationToken)
            : throw CannotZero();

    private async ValueTask TrimOnPoolAsync(long offset, long length, bool durable, CancellationToken cancellationToken)
    {
        await Hop();
        while (length > 0)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long piece = IsBlockDevice ? Math.Min(length, DevicePiece) : length;
            if (!Trim(offset, piece))
            {
                break;
            }
            offset += piece;
            length -= piece;
        }
        if (durable)
        {
            Sync();
        }
    }

    private async ValueTask ZeroOnPoolAsync(
        long offset, long length, RequestFlags flags, CancellationToken cancellationToken)
    {
        await Hop();
        while (length > 0)
        {
            cancellationToken.ThrowIfCancellationRequested();
            long piece = IsBlockDevice ? Math.Min(length, DevicePiece) : length;
            if (!(IsBlockDevice ? ZeroDevice(offset, piece, flags) : ZeroFile(offset, piece, flags)))
            {
                throw CannotZero();
            }
            offset += piece;
            length -= piece;
        }
        if ((flags & RequestFlags.Fua) != 0)
        {
            Sync();
        }
    }

    private bool Trim(long offset, long length)
        => (_canPunch && Done(LinuxFile.PunchHole(Handle, offset, length), ref _canPunch))
            || (IsBlockDevice && _canDiscard && Done(LinuxFile.Discard(Handle, offset, length), ref _canDiscard));

    private bool ZeroFile(long offset, long length, RequestFlags flags)
    {
        bool mayTrim = (flags & RequestFlags.MayTrim) != 0;
        return (mayTrim && _canPunch && Done(LinuxFile.PunchHole(Handle, offset, length), ref _canPunch))
            || (_canZeroRange && Done(LinuxFile.ZeroRange(Handle, offset, length), ref _canZeroRange))
            || (_canPunch && _canAllocate
                && Done(LinuxFile.PunchHole(Handle, offset, length), ref _canPunch)
                && Done(LinuxFile.AllocateRange(Handle, offset, length), ref _canAllocate));
    }

    private bool ZeroDevice(long offset, long length, RequestFlags flags)
    {
        // Punching fails where the device itself cannot zero; the other ways let the kernel write zeroes then.
        bool mayTrim = (flags & RequestFlags.MayTrim) != 0;
        bool mayWrite = (flags & RequestFlags.FastZero) == 0;
        return (mayTrim && _canPunch && Done(LinuxFile.PunchHole(Handle, offset, length), ref _canPunch))
            || (mayWrite && _canZeroRange && Done(LinuxFile.ZeroRange(Handle, offset, length), ref _canZeroRange))
            || (mayWrite && _canZeroOut && Done(LinuxFile.ZeroOut(Handle, offset, length), ref _canZeroOut));
    }

    private static bool Done(int error, ref bool isPossible)
    {
        switch (error)
        {
            case 0:
                return true;
            case Errno.NotSupported or Errno.NotImplemented or Errno.NotTerminal or Errno.NoDevice:
                isPossible = false;
                return false;
            case Errno.Invalid or Errno.Busy:
                // This range is not aligned, or the device is in use just now.
                return false;
            default:
                throw FileErrors.FromErrno(error, "cannot zero or trim");
        }
    }

    private static NbdException CannotZero() => new(NbdError.NotSupported, "the file cannot be zeroed without writing zeroes");
}
