using System.Globalization;

namespace NbdKit.Plugins.Scripts;

/// <summary>Reads what scripts print, and writes what they are told.</summary>
internal static class ScriptText
{
    private static readonly char[] Blanks = [' ', '\t', '\r'];

    /// <summary>The flags of a request as scripts get them.</summary>
    public static string Flags(RequestFlags flags)
    {
        var words = new List<string>(3);
        if ((flags & RequestFlags.Fua) != 0)
        {
            words.Add("fua");
        }
        if ((flags & RequestFlags.MayTrim) != 0)
        {
            words.Add("may_trim");
        }
        if ((flags & RequestFlags.RequestOne) != 0)
        {
            words.Add("req_one");
        }
        if ((flags & RequestFlags.FastZero) != 0)
        {
            words.Add("fast");
        }
        return string.Join(',', words);
    }

    public static string Boolean(bool value) => value ? "true" : "false";

    public static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);

    /// <summary>A text without the end of its line.</summary>
    public static string Chomp(string text) => text.EndsWith('\n') ? text[..^1] : text;

    /// <exception cref="FormatException">It is not a size.</exception>
    public static BlockSize BlockSize(string text)
    {
        string[] words = text.Split([.. Blanks, '\n'], StringSplitOptions.RemoveEmptyEntries);
        if (words.Length < 3)
        {
            throw new FormatException("it takes three sizes");
        }
        long[] sizes = [.. words.Take(3).Select(NbdParse.Size)];
        try
        {
            return sizes is [0, 0, 0] ? default : new BlockSize(sizes[0], sizes[1], sizes[2]);
        }
        catch (ArgumentOutOfRangeException e)
        {
            throw new FormatException(e.Message, e);
        }
    }

    /// <exception cref="FormatException">It is none of the three words.</exception>
    public static Support Support(string text) => Chomp(text).ToLowerInvariant() switch
    {
        "none" => NbdKit.Support.None,
        "emulate" => NbdKit.Support.Emulate,
        "native" => NbdKit.Support.Native,
        _ => throw new FormatException("it is none of none, emulate and native"),
    };

    /// <summary>The thread model; one that is not known is the safe one.</summary>
    public static ThreadModel Model(string text) => Chomp(text).ToLowerInvariant().Replace('-', '_') switch
    {
        "parallel" => ThreadModel.Parallel,
        "serialize_requests" => ThreadModel.SerializeRequests,
        "serialize_connections" => ThreadModel.SerializeConnections,
        _ => ThreadModel.SerializeAllRequests,
    };

    /// <summary>The exports in a list: the first line says how the others are to be read.</summary>
    public static List<(string Name, string? Description)> Exports(string text)
    {
        string[] lines = Chomp(text) is { Length: > 0 } content ? content.Split('\n') : text.Length > 0 ? [""] : [];
        string mode = lines.FirstOrDefault("");
        if (mode is "NAMES" or "INTERLEAVED" or "NAMES+DESCRIPTIONS")
        {
            lines = lines[1..];
        }
        int half = (lines.Length + 1) / 2;
        return mode switch
        {
            "INTERLEAVED" => [.. Enumerable.Range(0, half).Select(i => (lines[2 * i], (string?)LineAt(lines, (2 * i) + 1)))],
            "NAMES+DESCRIPTIONS" => [.. Enumerable.Range(0, half).Select(i => (lines[i], (string?)LineAt(lines, half + i)))],
            _ => [.. lines.Select(line => (line, default(string)))],
        };
    }

    /// <summary>Adds extents, one on a line: offset, length, and perhaps a type.</summary>
    /// <exception cref="FormatException">A line is none.</exception>
    /// <exception cref="ArgumentException">The extents do not follow one another.</exception>
    public static void Extents(string text, ExtentList extents)
    {
        foreach (ReadOnlySpan<char> line in text.AsSpan().EnumerateLines())
        {
            string[] words = line.ToString().Split(Blanks, StringSplitOptions.RemoveEmptyEntries);
            if (words.Length == 0 || words[0].StartsWith('#'))
            {
                continue;
            }
            if (words.Length == 1)
            {
                throw new FormatException($"'{words[0]}' is an offset without a length");
            }
            extents.Add(NbdParse.Size(words[0]), NbdParse.Size(words[1]), words.Length == 2 ? ExtentStatus.Data : Status(words[2]));
        }
    }

    private static string LineAt(string[] lines, int index) => index < lines.Length ? lines[index] : "";

    private static ExtentStatus Status(string word)
    {
        if (char.IsAsciiDigit(word[0]))
        {
            return (ExtentStatus)NbdParse.Integer(word, 0, uint.MaxValue);
        }
        return (word.Contains("hole", StringComparison.Ordinal) ? ExtentStatus.Hole : ExtentStatus.Data)
            | (word.Contains("zero", StringComparison.Ordinal) ? ExtentStatus.Zero : ExtentStatus.Data);
    }
}
