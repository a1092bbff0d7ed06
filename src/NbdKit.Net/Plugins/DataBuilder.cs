using System.Buffers.Binary;
using System.Text;
using NbdKit.Plugins.Data;

namespace NbdKit.Plugins;

/// <summary>
/// Builds the content of a small disk part by part: each goes to the current offset and moves it on. What is never written is
/// zero.
/// </summary>
/// <remarks>
/// <code>
/// DataExpression sector = new DataBuilder().Text("boot").At(0x1fe).Bytes([0x55, 0xaa]).Build();
/// DataExpression disk = new DataBuilder().Repeat(sector, 4).AlignTo(1 &lt;&lt; 20).Build();
/// </code>
/// Not safe for several threads at once.
/// </remarks>
public sealed class DataBuilder
{
    private readonly List<DataNode> _parts = [];

    /// <summary>Adds a byte.</summary>
    /// <param name="value">The byte.</param>
    public DataBuilder Byte(byte value) => Bytes([value]);

    /// <summary>Adds bytes, which are copied.</summary>
    /// <param name="bytes">The bytes.</param>
    public DataBuilder Bytes(params ReadOnlySpan<byte> bytes)
        => Add(new DataNode(DataNodeKind.Bytes) { Bytes = bytes.ToArray() });

    /// <summary>Adds text in UTF-8.</summary>
    /// <param name="text">The text.</param>
    public DataBuilder Text(string text) => Bytes(Encoding.UTF8.GetBytes(text));

    /// <summary>Adds a number of 16 bits, the least significant byte first.</summary>
    /// <param name="value">The number.</param>
    public DataBuilder LittleEndian(ushort value) => Number(value, 2, BinaryPrimitives.WriteUInt64LittleEndian, 0);

    /// <summary>Adds a number of 32 bits, the least significant byte first.</summary>
    /// <param name="value">The number.</param>
    public DataBuilder LittleEndian(uint value) => Number(value, 4, BinaryPrimitives.WriteUInt64LittleEndian, 0);

    /// <summary>Adds a number of 64 bits, the least significant byte first.</summary>
    /// <param name="value">The number.</param>
    public DataBuilder LittleEndian(ulong value) => Number(value, 8, BinaryPrimitives.WriteUInt64LittleEndian, 0);

    /// <summary>Adds a number of 16 bits, the most significant byte first.</summary>
    /// <param name="value">The number.</param>
    public DataBuilder BigEndian(ushort value) => Number(value, 2, BinaryPrimitives.WriteUInt64BigEndian, 6);

    /// <summary>Adds a number of 32 bits, the most significant byte first.</summary>
    /// <param name="value">The number.</param>
    public DataBuilder BigEndian(uint value) => Number(value, 4, BinaryPrimitives.WriteUInt64BigEndian, 4);

    /// <summary>Adds a number of 64 bits, the most significant byte first.</summary>
    /// <param name="value">The number.</param>
    public DataBuilder BigEndian(ulong value) => Number(value, 8, BinaryPrimitives.WriteUInt64BigEndian, 0);

    /// <summary>Adds the same byte over and over.</summary>
    /// <param name="value">The byte.</param>
    /// <param name="count">How often.</param>
    /// <exception cref="ArgumentOutOfRangeException">The count is negative.</exception>
    public DataBuilder Fill(byte value, long count)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        return Add(new DataNode(DataNodeKind.Fill) { Bytes = new[] { value }, Number = count });
    }

    /// <summary>Goes to an offset. Bytes that are there already are written over by what follows.</summary>
    /// <param name="offset">The offset from the start of what is built.</param>
    /// <exception cref="ArgumentOutOfRangeException">The offset is negative.</exception>
    public DataBuilder At(long offset)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        return Add(new DataNode(DataNodeKind.MoveTo) { Number = offset });
    }

    /// <summary>Goes forward, or back if negative. Going back beyond the start is an error when the plugin starts.</summary>
    /// <param name="count">Number of bytes.</param>
    public DataBuilder Skip(long count) => Add(new DataNode(DataNodeKind.MoveBy) { Number = count });

    /// <summary>Goes forward to a multiple of an alignment; stays if it is there.</summary>
    /// <param name="alignment">The alignment, at least 1.</param>
    /// <exception cref="ArgumentOutOfRangeException">The alignment is less than 1.</exception>
    public DataBuilder AlignTo(long alignment)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(alignment, 1);
        return Add(new DataNode(DataNodeKind.Align) { Number = alignment });
    }

    /// <summary>Adds a file, which is read when the plugin starts.</summary>
    /// <param name="path">The path of the file.</param>
    public DataBuilder File(string path)
    {
        ArgumentException.ThrowIfNullOrEmpty(path);
        return Add(new DataNode(DataNodeKind.File) { Text = Path.GetFullPath(path), Place = $"the file {path}" });
    }

    /// <summary>Adds what another expression makes, with offsets of its own.</summary>
    /// <param name="expression">The expression.</param>
    public DataBuilder Add(DataExpression expression) => Repeat(expression, 1);

    /// <summary>Adds what another expression makes, over and over.</summary>
    /// <param name="expression">The expression.</param>
    /// <param name="count">How often.</param>
    /// <exception cref="ArgumentOutOfRangeException">The count is negative.</exception>
    public DataBuilder Repeat(DataExpression expression, long count)
    {
        ArgumentNullException.ThrowIfNull(expression);
        ArgumentOutOfRangeException.ThrowIfNegative(count);
        return Add(new DataNode(DataNodeKind.Repeat) { Parts = [expression.Root], Number = count });
    }

    /// <summary>
    /// Adds some bytes of what another expression makes. It is an error when the plugin starts if there are not that many.
    /// </summary>
    /// <param name="expression">The expression.</param>
    /// <param name="start">The first byte.</param>
    /// <param name="end">The byte after the last one; null for all there are.</param>
    /// <exception cref="ArgumentOutOfRangeException">The start is negative, or the end before it.</exception>
    public DataBuilder Slice(DataExpression expression, long start, long? end = null)
    {
        ArgumentNullException.ThrowIfNull(expression);
        ArgumentOutOfRangeException.ThrowIfNegative(start);
        ArgumentOutOfRangeException.ThrowIfLessThan(end ?? start, start, nameof(end));
        // Of a single file no more is read.
        DataNode whole = expression.Root is { Parts: [{ Kind: DataNodeKind.File } file] } ? file : expression.Root;
        return Add(new DataNode(DataNodeKind.Slice) { Parts = [whole], Number = start, End = end });
    }

    /// <summary>What was built so far. More may be added, which does not change what this returned.</summary>
    public DataExpression Build() => new(new DataNode(DataNodeKind.List) { Parts = [.. _parts] });

    private DataBuilder Number(ulong value, int length, NumberWriter write, int start)
    {
        Span<byte> bytes = stackalloc byte[8];
        write(bytes, value);
        return Bytes(bytes.Slice(start, length));
    }

    private DataBuilder Add(DataNode part)
    {
        _parts.Add(part);
        return this;
    }

    private delegate void NumberWriter(Span<byte> bytes, ulong value);
}
