using System.Numerics;
using System.Runtime.ExceptionServices;
using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Caching;

/// <summary>The cache of one export, shared by all its contexts.</summary>
/// <remarks>
/// <para>
/// The state and the slot of a block change only under the exclusive lock of the block; the content of a slot is read under
/// the shared one. A block that is not in the store may be read from below without any lock: what it held when the read
/// began is there.
/// </para>
/// <para>
/// Whoever holds blocks never waits for others: to make room, only blocks that nobody uses are taken.
/// </para>
/// </remarks>
internal sealed partial class CacheImage : IDisposable
{
    private const int PieceBytes = 1 << 20;

    // Never written to.
    private static readonly byte[] Zeroes = new byte[PieceBytes];

    private readonly Lock _lock = new();
    private readonly List<CacheUser> _writers = [];
    private readonly RangeLock _locks = new();
    private readonly SemaphoreSlim _walk = new(1, 1);
    private readonly CacheIndex _index;
    private readonly IOverlayStore _store;
    private readonly CacheMode _mode;
    private readonly int _shift;
    private readonly int _piece;
    private readonly int _highMark;
    private readonly int _lowMark;

    /// <param name="size">The size of the disk.</param>
    /// <param name="blockSize">The size of its blocks, a power of two.</param>
    /// <param name="store">Holds the blocks; disposed of with the image.</param>
    /// <param name="mode">When to write below.</param>
    /// <param name="limits">How large it may become; null for as large as the disk.</param>
    public CacheImage(long size, int blockSize, IOverlayStore store, CacheMode mode, CacheLimits? limits)
    {
        Size = size;
        BlockSize = blockSize;
        _shift = BitOperations.Log2((uint)blockSize);
        _piece = Math.Max(1, PieceBytes >> _shift);
        _store = store;
        _mode = mode;
        int capacity = (int)Math.Clamp((limits?.MaxSize ?? long.MaxValue) >> _shift, 1, Array.MaxLength);
        _index = new CacheIndex(Blocks, blockSize, capacity, store);
        _highMark = limits is null ? capacity : (int)Math.Max(1, (long)capacity * limits.HighThreshold / 100);
        _lowMark = limits is null ? capacity : (int)((long)capacity * limits.LowThreshold / 100);
    }

    public long Size { get; }

    public int BlockSize { get; }

    /// <summary>The number of contexts that use it; guarded by the filter.</summary>
    public int Users { get; set; }

    /// <summary>The number of blocks it holds.</summary>
    public int Used => _index.Used;

    /// <summary>The number of blocks that are to be written to the layer below.</summary>
    public int Changed => _index.Changed;

    private long Blocks => Size == 0 ? 0 : BlockOf(Size - 1) + 1;

    private bool IsWriteThrough => _mode == CacheMode.WriteThrough;

    /// <summary>A context begins to use it.</summary>
    public void Enter(CacheUser user)
    {
        if (user.CanWrite)
        {
            lock (_lock)
            {
                _writers.Add(user);
            }
        }
    }

    /// <summary>
    /// A context ends: if it is the last one that can write, everything is written below first. What went through it is
    /// flushed.
    /// </summary>
    public async ValueTask LeaveAsync(CacheUser user, CancellationToken cancellationToken)
    {
        if (!user.CanWrite)
        {
            return;
        }
        bool isLast;
        lock (_lock)
        {
            user.BeginLeaving();
            isLast = _writers.TrueForAll(other => other.IsLeaving);
        }
        Exception? failure = null;
        try
        {
            await user.WaitForBorrowersAsync().ConfigureAwait(false);
            if (!IsWriteThrough)
            {
                failure = isLast ? await WriteChangedAsync(user, cancellationToken).ConfigureAwait(false) : null;
                await user.FlushAsync(evenIfUnused: false, cancellationToken).ConfigureAwait(false);
            }
        }
        catch (Exception e)
        {
            failure ??= e;
        }
        lock (_lock)
        {
            _writers.Remove(user);
        }
        user.EndLeaving(failure);
        if (failure is not null)
        {
            ExceptionDispatchInfo.Throw(failure);
        }
    }

    public void Dispose()
    {
        _store.Dispose();
        _walk.Dispose();
    }

    /// <summary>A context that can write, to be given back; or null if there is none.</summary>
    private CacheUser? Borrow()
    {
        lock (_lock)
        {
            return _writers.FindLast(user => user.TryBorrow());
        }
    }

    private async ValueTask WriteBelowAsync(
        CacheUser user, ReadOnlyMemory<byte> data, long offset, RequestFlags flags, CancellationToken cancellationToken)
    {
        await user.Next.WriteInPiecesAsync(data, offset, Below(user, flags), cancellationToken).ConfigureAwait(false);
        await CompleteBelowAsync(user, flags, cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Ends a change of the layer below: makes it durable if that is wanted and was not done.</summary>
    private static async ValueTask CompleteBelowAsync(CacheUser user, RequestFlags flags, CancellationToken cancellationToken)
    {
        user.NoteWrite();
        if ((flags & RequestFlags.Fua) != 0 && user.Next.Info.CanFua == Support.None)
        {
            await user.FlushAsync(evenIfUnused: true, cancellationToken).ConfigureAwait(false);
        }
    }

    /// <summary>
    /// The flags for the layer below. One that takes FUA but no flushes gets everything with FUA, so that a flush of the
    /// cache has nothing left to promise.
    /// </summary>
    private RequestFlags Below(CacheUser user, RequestFlags flags)
        => user.Next.Info.CanFua == Support.None
            ? flags & ~RequestFlags.Fua
            : _mode == CacheMode.WriteBack && !user.CanFlush ? flags | RequestFlags.Fua : flags;

    private long BlockOf(long offset) => offset >> _shift;

    private long StartOf(long block) => block << _shift;

    // The last block ends with the disk.
    private long EndOf(long block) => Size - StartOf(block) > BlockSize ? StartOf(block) + BlockSize : Size;

    private long SlotOffset(int slot) => (long)slot << _shift;

    private int LengthOf(long first, long end) => (int)(EndOf(end - 1) - StartOf(first));
}
