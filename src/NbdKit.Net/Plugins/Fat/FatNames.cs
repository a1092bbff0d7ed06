using System.Globalization;
using System.Text;

namespace NbdKit.Plugins.Fat;

/// <summary>Which names FAT can hold, and the short names that go with them.</summary>
internal static class FatNames
{
    private const int MaximumLength = 255;
    private const int PlainTails = 4;
    private const string Forbidden = "\"*/:<>?\\|";
    private const string ForbiddenInShort = Forbidden + "+,.;=[] ";

    /// <summary>Why a name cannot be held; null if it can.</summary>
    public static string? Objection(string name) => name switch
    {
        _ when name.Contains((char)Rune.ReplacementChar.Value, StringComparison.Ordinal) => "its name is not valid UTF-8",
        _ when name.Length > MaximumLength => $"its name is longer than the {MaximumLength} UTF-16 units that FAT can hold",
        _ when name[^1] is '.' or ' ' => "FAT cannot hold a name that ends with a dot or a space",
        _ when name.Any(c => c < ' ' || Forbidden.Contains(c, StringComparison.Ordinal))
            => "FAT cannot hold a name with a control character or one of " + Forbidden,
        _ => null,
    };

    /// <summary>A volume label as stored: upper case, padded with spaces.</summary>
    /// <exception cref="ArgumentException">FAT cannot hold it.</exception>
    public static byte[] Label(string label)
    {
        if (label.Length is 0 or > 11 || label[0] == ' '
            || label.Any(c => c is not ' ' && !IsShort(char.ToUpperInvariant(c))))
        {
            throw new ArgumentException(
                $"floppy: the label '{label}' must be 1 to 11 ASCII characters, no space first, and none of {ForbiddenInShort.TrimEnd()}");
        }
        return Encoding.ASCII.GetBytes(label.ToUpperInvariant().PadRight(11));
    }

    /// <summary>Gives each entry of a directory a short name that no other has.</summary>
    public static void Assign(IReadOnlyList<FatNode> entries)
    {
        var taken = new HashSet<string>(StringComparer.Ordinal);
        // Names that are short but for their case come first: a name that is made up must not take theirs.
        foreach (FatNode entry in entries)
        {
            string upper = entry.Name.ToUpperInvariant();
            if (IsShortName(upper))
            {
                int dot = upper.IndexOf('.', StringComparison.Ordinal);
                string stored = Stored(dot < 0 ? upper : upper[..dot], dot < 0 ? "" : upper[(dot + 1)..]);
                taken.Add(stored);
                entry.ShortName = Encoding.ASCII.GetBytes(stored);
                entry.HasLongName = upper != entry.Name;
            }
        }
        var tails = new Dictionary<string, int>(StringComparer.Ordinal);
        foreach (FatNode entry in entries.Where(entry => entry.ShortName.Length == 0))
        {
            entry.ShortName = Encoding.ASCII.GetBytes(MakeUp(entry.Name, taken, tails));
            entry.HasLongName = true;
        }
    }

    // The usual NAME~1 to NAME~4; after that a counter for all that begin alike, as trying one by one would take ever longer.
    private static string MakeUp(string name, HashSet<string> taken, Dictionary<string, int> tails)
    {
        int dot = name.LastIndexOf('.');
        string trunk = Legal(dot <= 0 ? name : name[..dot], 6);
        string extension = dot <= 0 ? "" : Legal(name[(dot + 1)..], 3);
        for (int i = 1; i <= PlainTails; i++)
        {
            string candidate = Stored(string.Create(CultureInfo.InvariantCulture, $"{trunk}~{i}"), extension);
            if (taken.Add(candidate))
            {
                return candidate;
            }
        }
        trunk = trunk[..Math.Min(2, trunk.Length)];
        string key = Stored(trunk, extension);
        int tail = tails.GetValueOrDefault(key, PlainTails);
        string stored;
        do
        {
            stored = Stored(string.Create(CultureInfo.InvariantCulture, $"{trunk}~{++tail}"), extension);
        }
        while (!taken.Add(stored));
        tails[key] = tail;
        return stored;
    }

    private static string Legal(string text, int length)
    {
        var legal = new StringBuilder(length);
        foreach (Rune rune in text.EnumerateRunes())
        {
            if (legal.Length == length)
            {
                break;
            }
            if (rune.Value is not ('.' or ' '))
            {
                char upper = rune.IsAscii ? char.ToUpperInvariant((char)rune.Value) : '_';
                legal.Append(IsShort(upper) ? upper : '_');
            }
        }
        return legal.Length == 0 && length > 3 ? "_" : legal.ToString();
    }

    private static bool IsShortName(string upper)
    {
        string[] parts = upper.Split('.');
        return parts.Length <= 2
            && parts[0].Length is > 0 and <= 8
            && (parts.Length == 1 || parts[1].Length is > 0 and <= 3)
            && parts.All(part => part.All(IsShort));
    }

    private static bool IsShort(char c)
        => c is > ' ' and < '\x7f' && !char.IsAsciiLetterLower(c) && !ForbiddenInShort.Contains(c, StringComparison.Ordinal);

    private static string Stored(string trunk, string extension) => trunk.PadRight(8) + extension.PadRight(3);
}
