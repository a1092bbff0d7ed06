using System.Buffers.Binary;
using System.Runtime.InteropServices;

namespace NbdKit.Plugins;

/// <summary>
/// A read-only disk for tests, on which every eight bytes hold their own offset, the most significant byte first
/// (nbdkit-pattern-plugin(1)). It takes no space and may be of any size.
/// </summary>
/// <remarks>
/// The byte at offset <c>n</c> is byte <c>n % 8</c> of the number <c>n - n % 8</c>. If the size is no multiple of 8,
/// the last number is cut off.
/// </remarks>
public sealed class PatternPlugin : INbdPlugin, INbdPluginHandle
{
    /// <summary>The plugin in the catalogue: <c>pattern</c>, with the magic parameter <c>size</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "pattern",
        "a read-only disk of which every eight bytes are their own offset",
        [new NbdParameter("size", "size of the disk") { IsRequired = true }],
        parameters => new PatternPlugin
        {
            Size = parameters.Size("size") ?? throw new ArgumentException("pattern: the parameter size= is required."),
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
        }
    }

    /// <inheritdoc/>
    public string Name => "pattern";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <inheritdoc/>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => new(this);

    /// <inheritdoc/>
    public ValueTask<NbdExportInfo> GetInfoAsync(CancellationToken cancellationToken)
        => new(new NbdExportInfo { Size = Size, CanCache = Support.Native, CanMultiConn = true });

    /// <inheritdoc/>
    public ValueTask ReadAsync(Memory<byte> buffer, long offset, CancellationToken cancellationToken)
    {
        Span<byte> span = buffer.Span;
        int within = (int)offset & 7;
        if (within != 0)
        {
            int head = Math.Min(8 - within, span.Length);
            WritePart(offset - within, within, span[..head]);
            span = span[head..];
            offset += head;
        }
        foreach (ref long word in MemoryMarshal.Cast<byte, long>(span))
        {
            word = BitConverter.IsLittleEndian ? BinaryPrimitives.ReverseEndianness(offset) : offset;
            offset += 8;
        }
        WritePart(offset, 0, span[(span.Length & ~7)..]);
        return default;
    }

    private static void WritePart(long number, int from, Span<byte> part)
    {
        Span<byte> word = stackalloc byte[8];
        BinaryPrimitives.WriteInt64BigEndian(word, number);
        word.Slice(from, part.Length).CopyTo(part);
    }
}
