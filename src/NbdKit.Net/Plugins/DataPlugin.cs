using NbdKit.Buffers;
using NbdKit.Plugins.Data;

namespace NbdKit.Plugins;

/// <summary>
/// A small disk that begins with the bytes it is given, such as a partition table in a test, and is all zeroes behind
/// them (nbdkit-data-plugin(1)). It is shared by all connections, may be written to, and is gone with the plugin.
/// </summary>
/// <remarks>
/// Set <see cref="Data"/> or <see cref="Expression"/>. Apart from its first content it is the disk of <see cref="MemoryPlugin"/>.
/// </remarks>
public sealed partial class DataPlugin : INbdPlugin
{
    private SparseDisk? _disk;

    /// <summary>
    /// The first bytes of the disk. They are copied when the chain starts, and must stay unchanged until then.
    /// </summary>
    /// <value>Empty by default.</value>
    public ReadOnlyMemory<byte> Data { get; init; }

    /// <summary>
    /// What makes the first bytes of the disk, in place of <see cref="Data"/>; or null. Its files are read and its scripts are run
    /// when the chain starts.
    /// </summary>
    /// <value>Null by default.</value>
    public DataExpression? Expression { get; init; }

    /// <summary>
    /// How much memory the disk that <see cref="Expression"/> makes may take at first, in bytes, and likewise what is read for it
    /// from files and scripts; zeroes take none. Above that the chain does not start.
    /// </summary>
    /// <value>1 GiB by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long MemoryLimit
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value, nameof(MemoryLimit));
            field = value;
        }
    }
    = 1L << 30;

    /// <summary>
    /// Size of the disk in bytes, from 0 to 2^63-1: a larger one than that of the first bytes adds zeroes, a smaller
    /// one cuts bytes off. Null for exactly their size.
    /// </summary>
    /// <value>Null by default.</value>
    /// <exception cref="ArgumentOutOfRangeException">The value is negative.</exception>
    public long? Size
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfNegative(value ?? 0, nameof(value));
            field = value;
        }
    }

    /// <inheritdoc/>
    public string Name => "data";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Makes the disk.</summary>
    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">Both <see cref="Data"/> and <see cref="Expression"/> are set.</exception>
    /// <exception cref="NbdException">
    /// The expression cannot be evaluated, or takes more than <see cref="MemoryLimit"/>; the message says what and where.
    /// </exception>
    public async ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (Expression is null)
        {
            var array = new SparseArray(Size ?? Data.Length);
            array.Write(0, Data.Span[..(int)Math.Min(Data.Length, array.Size)]);
            _disk = new SparseDisk(array);
            return;
        }
        if (!Data.IsEmpty)
        {
            throw new InvalidOperationException("The data plugin serves either data or an expression: set one of them.");
        }
        DataPiece content = await new DataEvaluator(MemoryLimit).EvaluateAsync(Expression.Root, cancellationToken)
            .ConfigureAwait(false);
        var disk = new SparseArray(Size ?? content.Size);
        content.CopyTo(new DiskSink(disk, MemoryLimit, cancellationToken), 0, 0, Math.Min(content.Size, disk.Size));
        _disk = new SparseDisk(disk);
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(_disk ?? throw new InvalidOperationException("The plugin data was opened before it was made ready."));
}
