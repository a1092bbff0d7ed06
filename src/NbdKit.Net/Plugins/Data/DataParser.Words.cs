using System.Buffers.Binary;
using System.Text;

namespace NbdKit.Plugins.Data;

// The smallest parts: numbers, strings, names.
internal sealed partial class DataParser
{
    private static readonly string[] WordTypes = ["le16:", "le32:", "le64:", "be16:", "be32:", "be64:", "base64:"];

    private DataNode Byte()
    {
        int start = _at;
        ulong value = Number();
        return value <= byte.MaxValue
            ? new DataNode(DataNodeKind.Bytes) { Bytes = new[] { (byte)value } }
            : throw Fault(start, $"{value} is not a byte, which is from 0 to 255");
    }

    private DataNode Word()
    {
        int start = _at;
        string type = WordTypes.FirstOrDefault(type => string.CompareOrdinal(_text, _at, type, 0, type.Length) == 0)
            ?? throw Fault(start, $"a word begins with one of {string.Join(' ', WordTypes)}");
        _at += type.Length;
        if (type == "base64:")
        {
            return Base64();
        }
        ulong value = Number();
        int length = (type[2] - '0') switch { 1 => 2, 3 => 4, _ => 8 };
        if (length < 8 && value >> (8 * length) != 0)
        {
            throw Fault(start, $"{value} does not fit in {8 * length} bits");
        }
        byte[] bytes = new byte[8];
        BinaryPrimitives.WriteUInt64LittleEndian(bytes, value);
        Array.Resize(ref bytes, length);
        if (type[0] == 'b')
        {
            Array.Reverse(bytes);
        }
        return new DataNode(DataNodeKind.Bytes) { Bytes = bytes };
    }

    private DataNode Base64()
    {
        int start = _at;
        try
        {
            return new DataNode(DataNodeKind.Bytes)
            {
                Bytes = Convert.FromBase64String(Take(c => char.IsAsciiLetterOrDigit(c) || c is '+' or '/' or '=')),
            };
        }
        catch (FormatException e)
        {
            throw Fault(start, $"not base64: {e.Message}");
        }
    }

    private DataNode String()
    {
        int start = _at++;
        var bytes = new List<byte>();
        while (true)
        {
            string plain = Take(c => c is not ('"' or '\\'));
            bytes.AddRange(Encoding.UTF8.GetBytes(plain));
            if (AtEnd)
            {
                throw Fault(start, "a string without its closing quote");
            }
            if (_text[_at++] == '"')
            {
                return new DataNode(DataNodeKind.Bytes) { Bytes = bytes.ToArray() };
            }
            bytes.Add(Escape());
        }
    }

    private byte Escape()
    {
        int start = _at - 1;
        char c = AtEnd ? '\0' : _text[_at++];
        if (c == 'x')
        {
            return _at + 2 <= _text.Length && char.IsAsciiHexDigit(_text[_at]) && char.IsAsciiHexDigit(_text[_at + 1])
                ? Convert.ToByte(_text[_at..(_at += 2)], 16)
                : throw Fault(start, "\\x must be followed by two hexadecimal digits");
        }
        return c switch
        {
            'a' => 7,
            'b' => 8,
            't' => 9,
            'n' => 10,
            'v' => 11,
            'f' => 12,
            'r' => 13,
            '\\' or '"' or '\'' or '?' => (byte)c,
            _ => throw Fault(start, "an escape is one of \\a \\b \\t \\n \\v \\f \\r \\\\ \\\" \\' \\? and \\xNN"),
        };
    }

    private DataNode Source()
    {
        int start = _at - 1;
        if (!AtEnd && _text[_at] == '(')
        {
            return Script(start);
        }
        string path = Take(c => !char.IsWhiteSpace(c) && c is not ('*' or '[' or ')'));
        return path.Length > 0
            ? new DataNode(DataNodeKind.File) { Text = path }
            : throw Fault(start, "< must be followed by the path of a file");
    }

    private DataNode Script(int start)
    {
        if (!_options.AllowsScripts)
        {
            throw Fault(start, "scripts are not allowed");
        }
        int from = ++_at;
        for (int depth = 1; !AtEnd; _at++)
        {
            depth += _text[_at] switch { '(' => 1, ')' => -1, _ => 0 };
            if (depth == 0)
            {
                return new DataNode(DataNodeKind.Script) { Text = _text[from.._at++] };
            }
        }
        throw Fault(start, "'<(' without ')'");
    }

    private string Name()
    {
        SkipSpace();
        int start = _at;
        Expect('\\');
        string name = Take(c => char.IsAsciiLetterOrDigit(c) || c is '_' or '-');
        // "\a->" names a: the arrow is not part of it.
        if (name.EndsWith('-') && !AtEnd && _text[_at] == '>')
        {
            name = name[..^1];
            _at--;
        }
        return name.Length > 0 ? name : throw Fault(start, "\\ must be followed by a name");
    }

    private long Offset()
    {
        SkipSpace();
        int start = _at;
        ulong value = Number();
        return value <= long.MaxValue ? (long)value : throw Fault(start, $"{value} is more than 2^63-1");
    }

    /// <summary>A number in decimal, octal (0) or hexadecimal (0x).</summary>
    private ulong Number()
    {
        int start = _at;
        bool isHexadecimal = string.Compare(_text, _at, "0x", 0, 2, StringComparison.OrdinalIgnoreCase) == 0;
        _at += isHexadecimal ? 2 : 0;
        string digits = Take(isHexadecimal ? char.IsAsciiHexDigit : char.IsAsciiDigit);
        uint radix = isHexadecimal ? 16u : digits.StartsWith('0') ? 8u : 10u;
        if (digits.Length == 0)
        {
            throw Fault(start, "a number is missing");
        }
        UInt128 value = 0;
        foreach (char c in digits)
        {
            uint digit = Convert.ToUInt32(c.ToString(), 16);
            value = (value * radix) + digit;
            if (digit >= radix || value > ulong.MaxValue)
            {
                throw Fault(start, digit >= radix ? $"'{digits}' is not octal" : $"'{digits}' is too large");
            }
        }
        return (ulong)value;
    }

    private string Take(Func<char, bool> belongs)
    {
        int start = _at;
        while (!AtEnd && belongs(_text[_at]))
        {
            _at++;
        }
        return _text[start.._at];
    }

    private void SkipSpace() => Take(char.IsWhiteSpace);

    private void Expect(char c)
    {
        if (AtEnd || _text[_at] != c)
        {
            throw Fault(_at, $"'{c}' is missing");
        }
        _at++;
    }
}
