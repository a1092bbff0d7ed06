namespace NbdKit.Tool;

/// <summary>Arguments of the options of a verb.</summary>
internal static class VerbValue
{
    /// <summary>A size in bytes with a suffix, within limits.</summary>
    /// <exception cref="CommandException">It is none.</exception>
    public static long Size(string option, string value, long minimum, long maximum)
    {
        long size = Parsed(option, value, NbdParse.Size);
        return size >= minimum && size <= maximum
            ? size
            : throw new CommandException($"--{option}={value}: it must be from {minimum} to {maximum}");
    }

    /// <summary>A number, within limits.</summary>
    /// <exception cref="CommandException">It is none.</exception>
    public static int Number(string option, string value, int minimum, int maximum)
        => (int)Parsed(option, value, text => NbdParse.Integer(text, minimum, maximum));

    /// <summary>What a parser makes of it.</summary>
    /// <exception cref="CommandException">The parser or the receiver refused it.</exception>
    public static T Parsed<T>(string option, string value, Func<string, T> parse)
    {
        try
        {
            return parse(value);
        }
        catch (FormatException e)
        {
            throw new CommandException($"--{option}: {e.Message}", e);
        }
        catch (ArgumentException e)
        {
            throw new CommandException($"--{option}={value}: {StandardText.OneLine(e)}", e);
        }
    }
}
