namespace NbdKit;

/// <summary>
/// An opened disk as a seekable <see cref="Stream"/>, for code that knows nothing of NBD: file system readers,
/// archivers, hashes.
/// </summary>
/// <remarks>
/// <para>
/// The length is that of the disk and never changes: reads end there, and a write that would go beyond it fails as a
/// whole, like one on a full disk. Nothing is buffered, so each call is at least one request; wrap it in a
/// <see cref="BufferedStream"/> for many small ones. Like every stream it is for one caller at a time; a context may
/// have several streams.
/// </para>
/// <para>
/// On a disk with a minimum block size, blocks that a call covers in part are read, and for a write read, changed and
/// written back, which is not atomic against other users of the disk. Requests are no larger than the disk allows, and
/// no larger than 32 MiB.
/// </para>
/// <para>
/// A failure of the disk is an <see cref="IOException"/> around the <see cref="NbdException"/>; for
/// <see cref="NbdError.NoSpace"/> its <see cref="Exception.HResult"/> is that of a full disk (0x80070070) on every
/// system. The synchronous methods wait for the asynchronous ones.
/// </para>
/// </remarks>
public sealed partial class NbdStream : Stream
{
    private const int DiskFull = unchecked((int)0x80070070);

    private readonly NextContext _context;
    private readonly bool _leaveOpen;
    private readonly NbdExportInfo _info;
    private long _position;
    private bool _isDisposed;

    /// <summary>Creates a stream over a whole disk, positioned at its begin.</summary>
    /// <param name="context">The opened and prepared disk, as from <see cref="NbdBackend.OpenAsync"/>.</param>
    /// <param name="leaveOpen">
    /// Whether the context stays open when the stream is disposed of. Must be true for a context that is attached to a
    /// filter.
    /// </param>
    /// <exception cref="ArgumentNullException">The context is null.</exception>
    /// <exception cref="InvalidOperationException">The context is not prepared.</exception>
    public NbdStream(NextContext context, bool leaveOpen = false)
    {
        ArgumentNullException.ThrowIfNull(context);
        _info = context.Info;
        _context = context;
        _leaveOpen = leaveOpen;
        BlockSize blocks = _info.BlockSize;
        _blockSize = blocks.IsKnown ? (int)blocks.Minimum : 1;
        _largest = blocks.IsKnown ? (int)Math.Min(blocks.Maximum & -blocks.Minimum, LargestRequest) : LargestRequest;
    }

    /// <inheritdoc/>
    public override bool CanRead => !_isDisposed;

    /// <inheritdoc/>
    public override bool CanSeek => !_isDisposed;

    /// <summary>Whether the disk takes writes.</summary>
    public override bool CanWrite => !_isDisposed && _info.CanWrite;

    /// <summary>Size of the disk in bytes.</summary>
    /// <exception cref="ObjectDisposedException">The stream was disposed of.</exception>
    public override long Length
    {
        get
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            return _info.Size;
        }
    }

    /// <summary>The offset of the next byte read or written; it may lie beyond the end.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    /// <exception cref="ObjectDisposedException">The stream was disposed of.</exception>
    public override long Position
    {
        get
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            return _position;
        }
        set
        {
            ObjectDisposedException.ThrowIf(_isDisposed, this);
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            _position = value;
        }
    }

    /// <summary>Moves to another position, which may lie beyond the end.</summary>
    /// <param name="offset">Number of bytes from the origin.</param>
    /// <param name="origin">Where to count from.</param>
    /// <returns>The new position.</returns>
    /// <exception cref="ArgumentException">The origin is none.</exception>
    /// <exception cref="IOException">The position would be negative or more than 2^63-1; it stays what it
    /// was.</exception>
    /// <exception cref="ObjectDisposedException">The stream was disposed of.</exception>
    public override long Seek(long offset, SeekOrigin origin)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        long from = origin switch
        {
            SeekOrigin.Begin => 0,
            SeekOrigin.Current => _position,
            SeekOrigin.End => _info.Size,
            _ => throw new ArgumentException($"{origin} is no origin to seek from.", nameof(origin)),
        };
        if (offset < -from || offset > long.MaxValue - from)
        {
            throw new IOException($"A seek by {offset} bytes from {from} leads out of any disk.");
        }
        return _position = from + offset;
    }

    /// <summary>Not supported: the size of a disk cannot be changed.</summary>
    /// <param name="value">Ignored.</param>
    /// <exception cref="NotSupportedException">Always.</exception>
    public override void SetLength(long value)
        => throw new NotSupportedException("The size of a disk cannot be changed through a stream.");

    /// <summary>Brings all that was written to stable storage, if the disk takes flushes; else does nothing.</summary>
    /// <exception cref="IOException">The disk failed.</exception>
    /// <exception cref="ObjectDisposedException">The stream was disposed of.</exception>
    public override void Flush() => FlushAsync(CancellationToken.None).GetAwaiter().GetResult();

    /// <inheritdoc cref="Flush"/>
    /// <param name="cancellationToken">Gives up.</param>
    public override async Task FlushAsync(CancellationToken cancellationToken)
    {
        ObjectDisposedException.ThrowIf(_isDisposed, this);
        if (!_info.CanFlush)
        {
            return;
        }
        try
        {
            await _context.FlushAsync(cancellationToken).ConfigureAwait(false);
        }
        catch (NbdException e)
        {
            throw Failed(e);
        }
    }

    /// <summary>Closes the disk, unless it is to be left open. Does not flush it: that is
    /// <see cref="FlushAsync"/>.</summary>
    public override async ValueTask DisposeAsync()
    {
        if (!_isDisposed)
        {
            _isDisposed = true;
            if (!_leaveOpen)
            {
                await _context.DisposeAsync().ConfigureAwait(false);
            }
        }
    }

    /// <inheritdoc/>
    protected override void Dispose(bool disposing)
    {
        if (disposing)
        {
            DisposeAsync().AsTask().GetAwaiter().GetResult();
        }
        base.Dispose(disposing);
    }

    private static IOException Failed(NbdException e)
    {
        var failure = new IOException(e.Message, e);
        if (e.Error == NbdError.NoSpace)
        {
            failure.HResult = DiskFull;
        }
        return failure;
    }
}
