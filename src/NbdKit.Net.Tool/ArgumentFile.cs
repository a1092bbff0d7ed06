namespace NbdKit.Tool;

/// <summary>Arguments of the form <c>@FILE</c>, which stand for the arguments in a file.</summary>
internal static class ArgumentFile
{
    /// <summary>
    /// Replaces each <c>@FILE</c> before <c>--</c> with the lines of the file, without white space around them, blank
    /// lines and lines that begin with #. A line is one argument and not expanded again.
    /// </summary>
    public static IReadOnlyList<string> Expand(IReadOnlyList<string> arguments)
    {
        var expanded = new List<string>(arguments.Count);
        bool literal = false;
        foreach (string argument in arguments)
        {
            literal |= argument == "--";
            if (literal || argument.Length < 2 || argument[0] != '@')
            {
                expanded.Add(argument);
                continue;
            }
            foreach (string line in Lines(argument[1..]))
            {
                string text = line.Trim();
                if (text.Length > 0 && text[0] != '#')
                {
                    expanded.Add(text);
                }
            }
        }
        return expanded;
    }

    private static string[] Lines(string file)
    {
        try
        {
            return File.ReadAllLines(file);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new CommandException($"cannot read the arguments in {file}: {e.Message}", e);
        }
    }
}
