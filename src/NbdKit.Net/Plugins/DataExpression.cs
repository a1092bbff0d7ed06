using NbdKit.Plugins.Data;

namespace NbdKit.Plugins;

/// <summary>
/// The content of a small disk: bytes, moves, repetitions and slices of each other, and files. Made by <see cref="DataBuilder"/>, or
/// from text (<see cref="Parse"/>); served by <see cref="DataPlugin"/>. Immutable, and safe for use by any number of plugins.
/// </summary>
/// <remarks>
/// Nothing is read, run or put together before the plugin starts, and what is repeated is stored once, so an expression takes as
/// much memory as it was written with, however large its disk is.
/// </remarks>
public sealed class DataExpression
{
    internal DataExpression(DataNode root) => Root = root;

    internal DataNode Root { get; }

    /// <summary>Reads an expression in nbdkit's language (nbdkit-data-plugin(1), "Data format").</summary>
    /// <remarks>
    /// <code>
    /// 1 0x2 03             bytes
    /// le16:1 be64:0x2      words of 16, 32 and 64 bits, little and big endian
    /// "text\n\x00"         a string, in UTF-8
    /// base64:aGk=          bytes in base64
    /// @0x1fe @+4 @-2       go to an offset, forward, back
    /// @^512                go forward to a multiple
    /// ( 1 2 )              a group, with offsets of its own
    /// ( 1 2 )*256          over and over
    /// "hello"[1:3]         bytes 1 and 2; either number may be left out
    /// &lt;FILE                the bytes of a file; &lt;FILE[:512] reads no more than that
    /// &lt;(SCRIPT)            what a script prints, if scripts are allowed
    /// ( 1 2 ) -&gt; \a  \a    gives a name, and uses it, to the end of the group
    /// $NAME                a text in this language, as a group
    /// # ...                a comment, to the end of the line
    /// </code>
    /// It is stricter than nbdkit: an unknown escape, a name for nothing, an octal number with an 8 in it, and a slice beyond
    /// the end of a file are errors. An alignment need not be a power of two.
    /// </remarks>
    /// <param name="text">The expression.</param>
    /// <param name="options">What it may do; null for the defaults.</param>
    /// <exception cref="FormatException">It is not an expression; the message says at which offset, and why.</exception>
    public static DataExpression Parse(string text, DataExpressionOptions? options = null)
    {
        ArgumentNullException.ThrowIfNull(text);
        return new DataExpression(DataParser.Parse(text, options ?? new DataExpressionOptions()));
    }
}
