using System.Globalization;
using System.Text.Json;

namespace NbdKit.Filters.Extents;

/// <summary>Reads lists of extents: lines of nbdkit's, or what <c>qemu-img map --output=json</c> prints.</summary>
internal static class ExtentFile
{
    // About a million extents as qemu-img writes them.
    private const int LargestFile = 128 << 20;

    private static readonly char[] Blanks = [' ', '\t'];

    /// <exception cref="ArgumentException">The file cannot be read, or is not such a list; the message says where.</exception>
    public static List<Extent> Read(string path)
    {
        try
        {
            using FileStream file = File.OpenRead(path);
            if (file.CanSeek && file.Length > LargestFile)
            {
                throw new FormatException($"it is larger than {LargestFile} bytes");
            }
            using var reader = new StreamReader(file);
            return Parse(reader.ReadToEnd());
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or FormatException)
        {
            throw new ArgumentException($"extentlist: extentlist={path}: {e.Message}", nameof(path), e);
        }
    }

    /// <exception cref="FormatException">The text is not a list of extents.</exception>
    public static List<Extent> Parse(string text)
        => text.AsSpan().TrimStart().StartsWith("[", StringComparison.Ordinal) ? ParseJson(text) : ParseLines(text);

    private static List<Extent> ParseLines(string text)
    {
        var extents = new List<Extent>();
        int number = 0;
        foreach (ReadOnlySpan<char> line in text.AsSpan().EnumerateLines())
        {
            number++;
            int comment = line.IndexOf('#');
            string content = (comment < 0 ? line : line[..comment]).Trim().ToString();
            if (content.Length == 0)
            {
                continue;
            }
            string[] fields = content.Split(Blanks, StringSplitOptions.RemoveEmptyEntries);
            if (fields.Length is < 2 or > 3)
            {
                throw new FormatException($"line {number} is not of the form 'offset length type'");
            }
            try
            {
                extents.Add(Checked(NbdParse.Size(fields[0]), NbdParse.Size(fields[1]), fields.Length < 3 ? 0 : Status(fields[2])));
            }
            catch (FormatException e)
            {
                throw new FormatException($"line {number}: {e.Message}", e);
            }
        }
        return extents;
    }

    private static ExtentStatus Status(string text)
    {
        if (ulong.TryParse(text, NumberStyles.None, CultureInfo.InvariantCulture, out ulong number) && number <= 3)
        {
            return (ExtentStatus)number;
        }
        ExtentStatus status = 0;
        foreach (string word in text.Split(','))
        {
            status |= word switch
            {
                "hole" => ExtentStatus.Hole,
                "zero" => ExtentStatus.Zero,
                _ => throw new FormatException($"'{text}' is not a number from 0 to 3, nor 'hole' or 'zero' or both"),
            };
        }
        return status;
    }

    private static List<Extent> ParseJson(string text)
    {
        var extents = new List<Extent>();
        try
        {
            using JsonDocument document = JsonDocument.Parse(text);
            foreach (JsonElement item in document.RootElement.EnumerateArray())
            {
                // "data" is false where nothing is allocated, and "zero" says how it reads.
                ExtentStatus status = (item.GetProperty("data").GetBoolean() ? 0 : ExtentStatus.Hole)
                    | (item.GetProperty("zero").GetBoolean() ? ExtentStatus.Zero : 0);
                extents.Add(Checked(item.GetProperty("start").GetInt64(), item.GetProperty("length").GetInt64(), status));
            }
        }
        catch (Exception e) when (e is JsonException or InvalidOperationException or KeyNotFoundException or FormatException)
        {
            throw new FormatException($"it is not what qemu-img map prints: {e.Message}", e);
        }
        return extents;
    }

    private static Extent Checked(long offset, long length, ExtentStatus status)
        => offset >= 0 && length >= 0 && length <= long.MaxValue - offset
            ? new Extent(offset, length, status)
            : throw new FormatException($"{length} bytes at {offset} are not a range of a disk");
}
