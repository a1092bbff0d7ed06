namespace NbdKit.Benchmarks.Report;

/// <summary>A Markdown file in which every mode has a section of its own between two comments.</summary>
internal static class ResultsFile
{
    /// <summary>Replaces a section, or adds it to the end.</summary>
    public static void Write(string path, string section, string content)
    {
        string begin = $"<!-- begin {section} -->\n";
        string end = $"<!-- end {section} -->\n";
        string text = File.Exists(path) ? File.ReadAllText(path) : "# Results\n";
        int from = text.IndexOf(begin, StringComparison.Ordinal);
        int to = text.IndexOf(end, StringComparison.Ordinal);
        string replacement = $"{begin}{content.Trim()}\n{end}";
        text = from >= 0 && to > from
            ? string.Concat(text.AsSpan(0, from), replacement, text.AsSpan(to + end.Length))
            : $"{text.TrimEnd()}\n\n{replacement}";
        File.WriteAllText(path, text);
        Console.Error.WriteLine($"{section}: written to {path}");
    }
}
