using NbdKit.Buffers;

namespace NbdKit.Plugins;

/// <summary>
/// A disk in memory, shared by all connections: all zeroes at first, and gone with the plugin. Only what was written
/// takes space, so it may be of any size (nbdkit-memory-plugin(1)).
/// </summary>
/// <remarks>
/// <para>
/// Space is taken in pages of 32 KiB, which is also the preferred block size and the grain of the extents; any offset
/// and length will do. The memory is outside of the managed heap, and on Linux in huge pages where 2 MiB of the disk are in use
/// as a whole, or are likely to be soon: writes of 256 KiB and more take that much ahead. Requests run in parallel without a lock, and complete synchronously. A write fails with ENOMEM
/// when the process has no memory left; nothing else limits what clients can make it take.
/// </para>
/// <para>
/// A trim, and a zero that may trim, gives up the pages that lie in its range as a whole. A zero that may not trim
/// (NBD_CMD_FLAG_NO_HOLE) keeps the pages there are, so they stay data in the extents, but makes none: there is no
/// space to reserve. nbdkit gives pages up in both cases. On
/// Linux the system has the memory back at once, elsewhere when the garbage collector finds that nobody uses it.
/// </para>
/// <para>
/// With <see cref="MemoryAllocator.Compressing"/> pages are compressed when 256 others (8 MiB) have been used since they were, each
/// under a lock of its own; requests run in parallel on the thread pool.
/// </para>
/// <para>
/// Large reads are sent to clients on sockets from where the bytes lie. A client that is slow to take such a reply may see what
/// was written to the same bytes meanwhile, as with any two requests that run at the same time.
/// </para>
/// </remarks>
public sealed class MemoryPlugin : INbdPlugin
{
    private readonly SparseDisk _disk = new(new SparseArray(0));
    private CompressedDisk? _compressed;

    /// <summary>The plugin in the catalogue: <c>memory</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "memory",
        "a disk in memory, shared by all connections",
        [
            new NbdParameter("size", "size of the disk") { IsRequired = true },
            new NbdParameter("allocator", "sparse, or zstd to keep what is written compressed (sparse)"),
        ],
        parameters => new MemoryPlugin
        {
            Size = parameters.Size("size") ?? throw new ArgumentException("memory: the parameter size= is required."),
            Allocator = AllocatorOf(parameters.Text("allocator")),
        })
    {
        MagicParameter = "size",
    };

    /// <summary>Size of the disk in bytes, from 0 to 2^63-1.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public required long Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value);
            field = value;
            _disk = new SparseDisk(new SparseArray(value));
        }
    }

    /// <summary>How what was written is kept.</summary>
    /// <value><see cref="MemoryAllocator.Sparse"/> by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is not one of the enumeration.</exception>
    public MemoryAllocator Allocator
    {
        get;
        init => field = value is MemoryAllocator.Sparse or MemoryAllocator.Compressing
            ? value
            : throw new ArgumentOutOfRangeException(nameof(Allocator), value, "There is no such allocator.");
    }

    /// <inheritdoc/>
    public string Name => "memory";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        _compressed = Allocator == MemoryAllocator.Compressing ? new CompressedDisk(new CompressedArray(Size)) : null;
        return default;
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(_compressed is null ? _disk : _compressed);

    private static MemoryAllocator AllocatorOf(string? text) => text switch
    {
        null or "sparse" => MemoryAllocator.Sparse,
        "zstd" => MemoryAllocator.Compressing,
        _ when text.Split(',')[0] == "malloc" => throw new ArgumentException(
            $"memory: allocator={text}: memory is neither taken ahead nor locked here; there are sparse and zstd."),
        _ => throw new ArgumentException($"memory: allocator={text} is not one of sparse, zstd."),
    };
}
