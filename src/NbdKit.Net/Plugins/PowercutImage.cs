using NbdKit.Buffers;
using NbdKit.Plugins.Powercut;

namespace NbdKit.Plugins;

/// <summary>
/// A disk as a power cut could have left it: read-only, and the same for ever, while the plugin that it was taken from goes
/// on. Read it directly, or serve it as the plugin of a chain, with a <see cref="NbdKit.Filters.CowFilter"/> over it if what
/// is tested has to write.
/// </summary>
/// <remarks>
/// It is read from the chain of its plugin and is good for as long as that runs. What the plugin changes in the chain while
/// there are images is copied to each of them first, so dispose of those that are no more wanted. One that is served is
/// disposed of with its chain. Safe for use by several threads.
/// </remarks>
public sealed partial class PowercutImage : INbdPlugin, IAsyncDisposable
{
    private const int SmallestBlock = 4096;
    private const int CopyBytes = 1 << 20;

    private readonly PowercutDisk _disk;
    private readonly JournalRecord[] _records;
    private readonly JournalIndex _index = new();
    private readonly PowercutFate _fate;
    private readonly int _block;
    private SparseArray? _kept;
    private BlockMap? _isKept;

    internal PowercutImage(PowercutDisk disk, int seed, JournalRecord[] records)
    {
        _disk = disk;
        _records = records;
        foreach (JournalRecord record in records)
        {
            _index.Add(record);
        }
        _fate = new PowercutFate(seed, records);
        _block = Math.Max(SmallestBlock, Math.Max(disk.Grain, disk.SectorSize));
        Seed = seed;
    }

    /// <summary>The seed that it was drawn with.</summary>
    public int Seed { get; }

    /// <summary>Size of the disk in bytes.</summary>
    public long Size => _disk.Info.Size;

    /// <inheritdoc/>
    public string Name => "powercut-image";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Fills a buffer.</summary>
    /// <param name="buffer">The memory to fill.</param>
    /// <param name="offset">First byte to read.</param>
    /// <param name="cancellationToken">Gives up.</param>
    /// <exception cref="ArgumentOutOfRangeException">The range is not inside the disk.</exception>
    /// <exception cref="ObjectDisposedException">The image is disposed of.</exception>
    /// <exception cref="InvalidOperationException">The plugin has stopped.</exception>
    /// <exception cref="NbdException">The chain of the plugin failed.</exception>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken = default)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Size - buffer.Length);
        return buffer.Length == 0 ? default : _disk.ReadImageAsync(this, buffer, offset, cancellationToken);
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(new PowercutImageHandle(this, _disk));

    /// <summary>Ends the use of the image.</summary>
    public ValueTask DisposeAsync() => _disk.ForgetAsync(this);

    /// <summary>Fills a buffer; the caller holds the stable side of the disk.</summary>
    internal async ValueTask FillAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        await FillBaseAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
        Apply(buffer.Span, offset);
    }

    /// <summary>A range of the chain is about to change: copies what was not copied yet.</summary>
    internal async ValueTask KeepAsync(JournalRange range, CancellationToken cancellationToken)
    {
        _kept ??= new SparseArray(Size);
        _isKept ??= new BlockMap(BlockAfter(Size));
        long limit = BlockAfter(range.End);
        for (long first = range.Start / _block; first < limit;)
        {
            BlockState state = _isKept.Run(first, limit, out long end);
            if (state == BlockState.Below)
            {
                (state, end) = await CopyAsync(first, end, cancellationToken).ConfigureAwait(false);
                _isKept.Set(first, end, state);
            }
            first = end;
        }
    }

    /// <summary>Copies the first of some blocks of the chain, unless they are zeroes; says which, and how many.</summary>
    private async ValueTask<(BlockState State, long End)> CopyAsync(long first, long end, CancellationToken cancellationToken)
    {
        long from = first * _block;
        long holeEnd = await _disk.EndOfHoleAsync(from, EndOf(end), cancellationToken).ConfigureAwait(false);
        long holes = (holeEnd >= Size ? BlockAfter(Size) : holeEnd / _block) - first;
        if (holes > 0)
        {
            return (BlockState.Trimmed, Math.Min(end, first + holes));
        }
        end = Math.Min(end, first + Math.Max(1, CopyBytes / _block));
        byte[] copy = new byte[EndOf(end) - from];
        await _disk.ReadChainAsync(copy, from, cancellationToken).ConfigureAwait(false);
        if (!copy.AsSpan().ContainsAnyExcept((byte)0))
        {
            return (BlockState.Trimmed, end);
        }
        _kept!.Write(from, copy);
        return (BlockState.Stored, end);
    }

    private async ValueTask FillBaseAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        if (_isKept is null)
        {
            await _disk.ReadChainAsync(buffer, offset, cancellationToken).ConfigureAwait(false);
            return;
        }
        while (buffer.Length > 0)
        {
            BlockState state = _isKept.Run(offset / _block, BlockAfter(offset + buffer.Length), out long end);
            int count = (int)Math.Min(buffer.Length, EndOf(end) - offset);
            if (state == BlockState.Below)
            {
                await _disk.ReadChainAsync(buffer[..count], offset, cancellationToken).ConfigureAwait(false);
            }
            else
            {
                // What was found to be zeroes was never written there.
                _kept!.Read(offset, buffer.Span[..count]);
            }
            buffer = buffer[count..];
            offset += count;
        }
    }

    private long BlockAfter(long end) => (end / _block) + (end % _block == 0 ? 0 : 1);

    private long EndOf(long blocks) => Size / _block < blocks ? Size : blocks * _block;
}
