namespace NbdKit.Plugins.Data;

/// <summary>Reads the language of data expressions (nbdkit-data-plugin(1), "Data format").</summary>
internal sealed partial class DataParser
{
    // Variables may name each other: what they make is bounded.
    private const int DeepestNesting = 100;
    private const int MostParts = 1 << 20;

    private readonly DataExpressionOptions _options;
    private readonly string _text;
    private readonly string _where;
    private readonly Counter _counter;
    private int _at;

    private DataParser(string text, string where, DataExpressionOptions options, Counter counter)
    {
        _text = text;
        _where = where;
        _options = options;
        _counter = counter;
    }

    private bool AtEnd => _at >= _text.Length;

    /// <exception cref="FormatException">The text is not an expression; the message says where and why.</exception>
    public static DataNode Parse(string text, DataExpressionOptions options)
        => new DataParser(text, "", options, new Counter()).List(opening: -1);

    private DataNode List(int opening)
    {
        if (++_counter.Depth > DeepestNesting)
        {
            throw Fault(Math.Max(0, opening), $"nested deeper than {DeepestNesting}");
        }
        var parts = new List<DataNode>();
        for (; !AtEnd; SkipSpace())
        {
            int start = _at;
            char c = _text[_at];
            if (c == ')' && opening >= 0)
            {
                break;
            }
            if (++_counter.Parts > MostParts)
            {
                throw Fault(start, $"more than {MostParts} parts");
            }
            switch (c)
            {
                case '#':
                    int line = _text.IndexOf('\n', _at);
                    _at = line < 0 ? _text.Length : line;
                    break;
                case '*' or '[' or '-':
                    _at++;
                    Suffix(c, parts, start);
                    break;
                default:
                    if (!char.IsWhiteSpace(c))
                    {
                        parts.Add(Part(c) with { Place = Place(start) });
                    }
                    break;
            }
        }
        if (AtEnd && opening >= 0)
        {
            throw Fault(opening, "'(' without ')'");
        }
        _counter.Depth--;
        return new DataNode(DataNodeKind.List) { Parts = parts, Place = Place(Math.Max(0, opening)) };
    }

    private void Suffix(char c, List<DataNode> parts, int start)
    {
        string what = c == '*' ? "*N" : c == '[' ? "[N:M]" : "->";
        if (c == '-')
        {
            Expect('>');
        }
        if (parts.Count == 0 || !parts[^1].IsData)
        {
            throw Fault(start, $"{what} must follow something that has bytes");
        }
        DataNode[] one = [parts[^1]];
        parts[^1] = c switch
        {
            '*' => new DataNode(DataNodeKind.Repeat) { Parts = one, Number = Offset(), Place = Place(start) },
            '[' => Slice(start, one),
            _ => new DataNode(DataNodeKind.Assign) { Parts = one, Text = Name(), Place = Place(start) },
        };
        // What is evaluated within each other takes the stack of a thread.
        if (parts[^1].Depth > 2 * DeepestNesting)
        {
            throw Fault(start, $"nested deeper than {DeepestNesting}");
        }
    }

    private DataNode Slice(int start, DataNode[] one)
    {
        SkipSpace();
        long from = !AtEnd && _text[_at] == ':' ? 0 : Offset();
        SkipSpace();
        Expect(':');
        SkipSpace();
        long? to = !AtEnd && _text[_at] == ']' ? null : Offset();
        SkipSpace();
        Expect(']');
        return to < from
            ? throw Fault(start, $"[{from}:{to}] ends before it begins")
            : new DataNode(DataNodeKind.Slice) { Parts = one, Number = from, End = to, Place = Place(start) };
    }

    private DataNode Part(char c)
    {
        int start = _at;
        switch (c)
        {
            case >= '0' and <= '9':
                return Byte();
            case 'l' or 'b':
                return Word();
            case '"':
                return String();
            case '@':
                _at++;
                return Move();
            case '(':
                _at++;
                DataNode list = List(start);
                _at++;
                return list;
            case ')':
                throw Fault(start, "')' without '('");
            case '<':
                _at++;
                return Source();
            case '\\':
                return new DataNode(DataNodeKind.Name) { Text = Name() };
            case '$':
                return Variable();
            default:
                throw Fault(start, $"'{c}' begins nothing that is known");
        }
    }

    private DataNode Move()
    {
        int start = _at;
        char c = AtEnd ? '\0' : _text[_at];
        if (c is '+' or '-' or '^')
        {
            _at++;
        }
        else if (!char.IsAsciiDigit(c))
        {
            throw Fault(start, "@ must be followed by a number, +, - or ^");
        }
        long number = Offset();
        return c switch
        {
            '+' or '-' => new DataNode(DataNodeKind.MoveBy) { Number = c == '+' ? number : -number },
            '^' when number == 0 => throw Fault(start, "an alignment is at least 1"),
            '^' => new DataNode(DataNodeKind.Align) { Number = number },
            _ => new DataNode(DataNodeKind.MoveTo) { Number = number },
        };
    }

    private DataNode Variable()
    {
        int start = _at++;
        string name = Take(c => char.IsAsciiLetterOrDigit(c) || c == '_');
        if (name.Length == 0 || char.IsAsciiDigit(name[0]))
        {
            throw Fault(start, "$ must be followed by a name");
        }
        string content = _options.Variables.TryGetValue(name, out string? given) ? given
            : (_options.UsesEnvironment ? Environment.GetEnvironmentVariable(name) : null)
                ?? throw Fault(start, $"there is no variable ${name}");
        return new DataParser(content, $" of ${name}", _options, _counter).List(opening: -1);
    }

    private string Place(int at) => $"at offset {at}{_where}";

    private FormatException Fault(int at, string what) => new($"data: {Place(at)}: {what}");

    /// <summary>What a text and the variables in it have made so far.</summary>
    private sealed class Counter
    {
        public int Depth { get; set; }

        public int Parts { get; set; }
    }
}
