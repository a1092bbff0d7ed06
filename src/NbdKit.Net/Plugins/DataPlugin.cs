using System.Text;
using NbdKit.Buffers;

namespace NbdKit.Plugins;

/// <summary>
/// A small disk that begins with the bytes it is given, such as a partition table in a test, and is all zeroes behind
/// them (nbdkit-data-plugin(1)). It is shared by all connections, may be written to, and is gone with the plugin.
/// </summary>
/// <remarks>Apart from its first content it is the disk of <see cref="MemoryPlugin"/>.</remarks>
public sealed class DataPlugin : INbdPlugin
{
    private SparseDisk? _disk;

    /// <summary>
    /// The plugin in the catalogue: <c>data</c>, with one of the parameters <c>raw</c> and <c>base64</c>, and
    /// <c>size</c>.
    /// </summary>
    public static NbdPluginEntry Entry { get; } = new(
        "data",
        "a disk in memory that begins with the bytes given",
        [
            new NbdParameter("base64", "first bytes of the disk, in base64"),
            new NbdParameter("raw", "first bytes of the disk, as text in UTF-8"),
            new NbdParameter("size", "size of the disk; adds zeroes or cuts off bytes (as many as there are bytes)"),
        ],
        parameters => new DataPlugin { Data = Parse(parameters), Size = parameters.Size("size") });

    /// <summary>
    /// The first bytes of the disk. They are copied when the chain starts, and must stay unchanged until then.
    /// </summary>
    public required ReadOnlyMemory<byte> Data { get; init; }

    /// <summary>
    /// Size of the disk in bytes, from 0 to 2^63-1: a larger one than that of <see cref="Data"/> adds zeroes, a smaller
    /// one cuts bytes off. Null for exactly the size of <see cref="Data"/>.
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

    /// <inheritdoc/>
    public ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        var array = new SparseArray(Size ?? Data.Length);
        array.Write(0, Data.Span[..(int)Math.Min(Data.Length, array.Size)]);
        _disk = new SparseDisk(array);
        return default;
    }

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(_disk ?? throw new InvalidOperationException("The plugin data was opened before it was made ready."));

    private static byte[] Parse(NbdParameters parameters)
    {
        string? raw = parameters.Text("raw");
        string? base64 = parameters.Text("base64");
        if (raw is null == base64 is null)
        {
            throw new ArgumentException("data: exactly one of the parameters raw= and base64= must be given.");
        }
        try
        {
            return raw is null ? Convert.FromBase64String(base64!) : Encoding.UTF8.GetBytes(raw);
        }
        catch (FormatException e)
        {
            throw new ArgumentException($"data: base64={base64}: {e.Message}", e);
        }
    }
}
