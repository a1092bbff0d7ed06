using NbdKit.Buffers;
using NbdKit.Plugins;

namespace NbdKit.Filters.Sequential;

/// <summary>
/// Keeps bytes that come one after the other, in memory or in a temporary file that nobody else can open and that is gone with
/// the process. Zeroes take no space. One writer; any number of readers of what was appended before.
/// </summary>
internal sealed class ScratchDisk : IAsyncDisposable
{
    // Shorter runs of zeroes are kept: holes cost metadata.
    private const int Grain = 32 << 10;

    private readonly ScratchStore _store;
    private readonly SparseFile? _file;
    private readonly INbdPluginHandle _disk;
    private long _length;

    public ScratchDisk(ScratchStore store)
    {
        _store = store;
        if (store.InMemory)
        {
            _disk = new SparseDisk(new SparseArray(store.Limit));
        }
        else
        {
            _file = SparseFile.CreateTemporary(store.Directory, 0);
            _disk = new FileHandle(_file, FileCacheMode.Default);
        }
    }

    /// <summary>The number of bytes that there are.</summary>
    public long Length => Volatile.Read(ref _length);

    /// <summary>Adds bytes at the end.</summary>
    /// <exception cref="NbdException">There is no space, or there would be more bytes than are allowed.</exception>
    public async ValueTask AppendAsync(ReadOnlyMemory<byte> data, CancellationToken cancellationToken)
    {
        long end = _length + data.Length;
        if (data.Length > _store.Limit - _length)
        {
            throw new NbdException(NbdError.NoSpace, $"there are more than the {_store.Limit} bytes that may be kept");
        }
        for (long at = _length; at < end;)
        {
            (long length, bool isZero) = Run(data.Span[(int)(at - _length)..], at);
            if (!isZero)
            {
                await _disk.WriteAsync(data.Slice((int)(at - _length), (int)length), at, RequestFlags.None, cancellationToken)
                    .ConfigureAwait(false);
            }
            at += length;
        }
        _file?.Grow(end);
        Volatile.Write(ref _length, end);
    }

    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
        => _disk.ReadAsync(buffer, offset, cancellationToken);

    /// <summary>
    /// Adds extents as <see cref="INbdPluginHandle.ExtentsAsync"/> does; of what is there, and never beyond the range.
    /// </summary>
    public async ValueTask ExtentsAsync(
        long offset, long length, RequestFlags flags, ExtentList extents, CancellationToken cancellationToken)
    {
        if (_file is { CanExtents: false })
        {
            extents.Add(offset, length, ExtentStatus.Data);
            return;
        }
        // While bytes are appended, a hole that ended with the file seems to reach to its new end.
        var known = new ExtentList(offset, offset + length);
        await _disk.ExtentsAsync(offset, length, flags, known, cancellationToken).ConfigureAwait(false);
        foreach (Extent extent in known)
        {
            extents.Add(extent.Offset, extent.Length, extent.Status);
        }
    }

    public bool TryLend(long offset, int length, Loan loan) => ((ILender)_disk).TryLend(offset, length, loan, forWrite: false);

    public ValueTask DisposeAsync() => _disk.CloseAsync();

    /// <summary>The first run of whole grains that are all zero, or all not.</summary>
    private static (long Length, bool IsZero) Run(ReadOnlySpan<byte> data, long offset)
    {
        int length = 0;
        bool isZero = false;
        while (length < data.Length)
        {
            int grain = (int)Math.Min(data.Length - length, Grain - ((offset + length) % Grain));
            bool isGrainZero = !data.Slice(length, grain).ContainsAnyExcept((byte)0);
            if (length > 0 && isGrainZero != isZero)
            {
                break;
            }
            isZero = isGrainZero;
            length += grain;
        }
        return (length, isZero);
    }
}
