using System.Numerics;

namespace NbdKit;

/// <summary>How <see cref="NbdCopy"/> copies. The defaults are those of nbdcopy(1) where it has the same setting.</summary>
public sealed record NbdCopyOptions
{
    /// <summary>How many pieces are copied at a time.</summary>
    /// <value>64 by default; at least 1.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1 or more than 65,536.</exception>
    public int MaxRequestsInFlight
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1, nameof(MaxRequestsInFlight));
            ArgumentOutOfRangeException.ThrowIfGreaterThan(value, 65_536, nameof(MaxRequestsInFlight));
            field = value;
        }
    } = 64;

    /// <summary>How many bytes are in memory at a time, rounded down to whole pieces, but at least one piece.</summary>
    /// <value>16 MiB by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long MaxBytesInFlight
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1, nameof(MaxBytesInFlight));
            field = value;
        }
    } = 16 << 20;

    /// <summary>
    /// How many bytes one piece has, if the block sizes of both sides allow it: it is made larger to cover a block, and smaller
    /// where a side takes only less at a time.
    /// </summary>
    /// <value>256 KiB by default; a power of two from 4,096 to 32 MiB.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not such a power of two.</exception>
    public int RequestSize
    {
        get;
        init
        {
            if (value is < 4096 or > 32 << 20 || !BitOperations.IsPow2(value))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(RequestSize), value, "The request size must be a power of two from 4,096 to 32 MiB.");
            }
            field = value;
        }
    } = 256 << 10;

    /// <summary>Whether the source is asked for its extents, so that what reads as zeroes is not read.</summary>
    /// <value>True by default.</value>
    public bool UseExtents { get; init; } = true;

    /// <summary>
    /// Blocks of that many bytes which turn out to hold only zeroes are not written as data; 0 writes all data as it is.
    /// </summary>
    /// <value>4,096 by default; 0, or a power of two from 512 to 1 GiB.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is neither.</exception>
    public int SparseSize
    {
        get;
        init
        {
            if (value != 0 && (value is < 512 or > 1 << 30 || !BitOperations.IsPow2(value)))
            {
                throw new ArgumentOutOfRangeException(
                    nameof(SparseSize), value, "The sparse size must be 0 or a power of two from 512 to 1 GiB.");
            }
            field = value;
        }
    } = 4096;

    /// <summary>
    /// Whether the destination reads as zeroes wherever the copy has not written: then zeroes are skipped. A stream is moved
    /// on by seeking, if it can. If it is not true, the destination keeps old bytes.
    /// </summary>
    public bool DestinationIsZero { get; init; }

    /// <summary>Whether zeroes keep their space at the destination: no holes are made there.</summary>
    public bool Allocated { get; init; }

    /// <summary>Whether the destination is flushed at the end, if it can be. True by default, unlike in nbdcopy(1).</summary>
    public bool Flush { get; init; } = true;

    /// <summary>Whether the SHA-256 of the whole source is computed on the way. It is one thread's work.</summary>
    public bool ComputeHash { get; init; }

    /// <summary>
    /// Whether the destination is read again at the end and compared with the source: byte by byte if that can be read
    /// again too, and by hash if it is a stream. Only for a destination that is a disk.
    /// </summary>
    public bool Verify { get; init; }

    /// <summary>
    /// The path of the journal, which makes the copy resumable, or null. If there is such a file, the copy goes on where it
    /// says; if not, it is created. A copy that succeeds removes it. Only for copies from disk to disk, where the
    /// destination takes flushes.
    /// </summary>
    /// <value>Null by default.</value>
    /// <exception cref="ArgumentException">The value is empty.</exception>
    public string? JournalPath
    {
        get;
        init
        {
            if (value is not null)
            {
                ArgumentException.ThrowIfNullOrWhiteSpace(value, nameof(JournalPath));
            }
            field = value is null ? null : Path.GetFullPath(value);
        }
    }

    /// <summary>
    /// What tells this copy from others for the journal, besides the sizes: the names of the two sides, and what changes when
    /// they do. A journal of another identity is refused.
    /// </summary>
    /// <value>Empty by default; at most 16,384 characters.</value>
    /// <exception cref="ArgumentException">The value is longer.</exception>
    public string JournalIdentity
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value, nameof(JournalIdentity));
            field = value.Length <= 16_384
                ? value
                : throw new ArgumentException("The identity of a copy has at most 16,384 characters.", nameof(JournalIdentity));
        }
    } = "";

    /// <summary>After how many copied bytes the destination is flushed and the journal brought up to date.</summary>
    /// <value>1 GiB by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public long JournalBytes
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1, nameof(JournalBytes));
            field = value;
        }
    } = 1 << 30;

    /// <summary>After how long the same is done, if less was copied meanwhile.</summary>
    /// <value>5 seconds by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not more than zero.</exception>
    public TimeSpan JournalInterval
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(value, TimeSpan.Zero, nameof(JournalInterval));
            field = value;
        }
    } = TimeSpan.FromSeconds(5);

    /// <summary>
    /// Called now and then, and once at the end, one call at a time, on a thread of the copy, which waits for it. What it
    /// throws ends the copy.
    /// </summary>
    /// <value>Null by default.</value>
    public Action<NbdCopyProgress>? Progress { get; init; }

    /// <summary>The shortest time between two calls of <see cref="Progress"/>.</summary>
    /// <value>100 ms by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public TimeSpan ProgressInterval
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, TimeSpan.Zero, nameof(ProgressInterval));
            field = value;
        }
    } = TimeSpan.FromMilliseconds(100);

    /// <summary>The clock.</summary>
    /// <value>That of the system by default.</value>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;
}
