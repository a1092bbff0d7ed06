namespace NbdKit.Tool;

/// <summary>Parses the command line as getopt_long does: options may stand anywhere before <c>--</c>.</summary>
internal static partial class CommandLine
{
    /// <summary>Parses and checks the arguments.</summary>
    /// <param name="arguments">The arguments, without the program's name.</param>
    /// <exception cref="CommandException">They make no sense; the message says why.</exception>
    public static CommandOptions Parse(IReadOnlyList<string> arguments)
    {
        var options = new CommandOptions();
        var bare = new List<string>();
        for (int i = 0; i < arguments.Count; i++)
        {
            string argument = arguments[i];
            if (argument == "--")
            {
                for (i++; i < arguments.Count; i++)
                {
                    bare.Add(arguments[i]);
                }
            }
            else if (argument.StartsWith("--", StringComparison.Ordinal))
            {
                options = Long(options, argument, arguments, ref i);
            }
            else if (argument.Length > 1 && argument[0] == '-')
            {
                options = Short(options, argument, arguments, ref i);
            }
            else
            {
                bare.Add(argument);
            }
        }
        return Checked(WithPlugin(options, bare));
    }

    private static CommandOptions Long(
        CommandOptions options, string argument, IReadOnlyList<string> arguments, ref int index)
    {
        int equals = argument.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? argument[2..] : argument[2..equals];
        OptionEntry entry = Find(name);
        string shown = "--" + name;
        if (entry.Argument is null)
        {
            return equals < 0
                ? Apply(options, entry, shown, "")
                : throw new CommandException($"the option {shown} takes no argument");
        }
        string value = equals < 0 ? Following(entry, shown, arguments, ref index) : argument[(equals + 1)..];
        return Apply(options, entry, shown, value);
    }

    private static CommandOptions Short(
        CommandOptions options, string argument, IReadOnlyList<string> arguments, ref int index)
    {
        for (int i = 1; i < argument.Length; i++)
        {
            string shown = "-" + argument[i];
            OptionEntry? entry = null;
            foreach (OptionEntry candidate in OptionEntry.All)
            {
                entry = candidate.Letter == argument[i] && candidate.Letter != '\0' ? candidate : entry;
            }
            if (entry is null)
            {
                throw Unknown(shown);
            }
            if (entry.Argument is not null)
            {
                string rest = argument[(i + 1)..];
                string value = rest.Length > 0 ? rest : Following(entry, shown, arguments, ref index);
                return Apply(options, entry, shown, value);
            }
            options = Apply(options, entry, shown, "");
        }
        return options;
    }

    /// <summary>The option of a long name, or of the beginning of one if there is no doubt.</summary>
    private static OptionEntry Find(string name)
    {
        OptionEntry? found = null;
        bool ambiguous = false;
        foreach (OptionEntry entry in OptionEntry.All)
        {
            foreach (string candidate in entry.Names)
            {
                if (candidate == name)
                {
                    return entry;
                }
                if (name.Length > 0 && candidate.StartsWith(name, StringComparison.Ordinal))
                {
                    ambiguous |= found is not null && found != entry;
                    found = entry;
                }
            }
        }
        return found is null ? throw Unknown("--" + name)
            : ambiguous ? throw new CommandException($"the option --{name} is ambiguous")
            : found;
    }

    private static string Following(OptionEntry entry, string shown, IReadOnlyList<string> arguments, ref int index)
        => ++index < arguments.Count
            ? arguments[index]
            : throw new CommandException($"the option {shown} needs an argument: {entry.Argument}");

    private static CommandException Unknown(string option)
        => new($"there is no option {option}; {Command.ProgramName} --help lists them");

    private static CommandOptions WithPlugin(CommandOptions options, List<string> bare)
    {
        if (bare.Count == 0)
        {
            return options;
        }
        var parameters = new List<KeyValuePair<string, string>>(bare.Count - 1);
        for (int i = 1; i < bare.Count; i++)
        {
            int key = KeyLength(bare[i]);
            parameters.Add(key == 0 ? new("", bare[i]) : new(bare[i][..key], bare[i][(key + 1)..]));
        }
        return options with { Plugin = bare[0], Parameters = parameters };
    }

    /// <summary>The length of the key if the argument is of the form key=value, else 0.</summary>
    private static int KeyLength(string argument)
    {
        int equals = argument.IndexOf('=', StringComparison.Ordinal);
        if (equals <= 0 || !char.IsAsciiLetter(argument[0]))
        {
            return 0;
        }
        foreach (char c in argument.AsSpan(0, equals))
        {
            if (!char.IsAsciiLetterOrDigit(c) && c is not ('.' or '_' or '-'))
            {
                return 0;
            }
        }
        return equals;
    }
}
