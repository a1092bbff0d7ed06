using System.Text;

namespace NbdKit.Tool;

/// <summary>
/// The arguments of a verb, parsed as getopt_long does, except that what stands in square brackets is one argument and keeps
/// its options to itself.
/// </summary>
internal sealed class VerbLine
{
    private VerbLine(IReadOnlyList<KeyValuePair<string, string>> options, IReadOnlyList<IReadOnlyList<string>> bare)
    {
        Options = options;
        Bare = bare;
    }

    /// <summary>The options in their order: each with its name, and its argument or "".</summary>
    public IReadOnlyList<KeyValuePair<string, string>> Options { get; }

    /// <summary>The other arguments: a word each, or what stands between square brackets, with the opening one.</summary>
    public IReadOnlyList<IReadOnlyList<string>> Bare { get; }

    /// <summary>Parses them.</summary>
    /// <exception cref="CommandException">They make no sense; the message says why.</exception>
    public static VerbLine Parse(IReadOnlyList<string> arguments, IReadOnlyList<VerbOption> known)
    {
        var options = new List<KeyValuePair<string, string>>();
        var bare = new List<IReadOnlyList<string>>();
        bool literal = false;
        for (int i = 0; i < arguments.Count; i++)
        {
            string argument = arguments[i];
            if (argument == "[")
            {
                bare.Add(Bracketed(arguments, ref i));
            }
            else if (literal || argument.Length < 2 || argument[0] != '-')
            {
                bare.Add([argument]);
            }
            else if (argument == "--")
            {
                literal = true;
            }
            else if (argument[1] == '-')
            {
                options.Add(Long(argument, arguments, known, ref i));
            }
            else
            {
                Short(argument, arguments, known, ref i, options);
            }
        }
        return new VerbLine(options, bare);
    }

    /// <summary>The help of the options.</summary>
    public static string Help(IReadOnlyList<VerbOption> known)
    {
        const int column = 32;
        var text = new StringBuilder();
        foreach (VerbOption option in known)
        {
            text.Append("  ").Append(option.Synopsis.PadRight(column - 1)).Append(' ').Append(option.Help).Append('\n');
        }
        return text.ToString();
    }

    private static List<string> Bracketed(IReadOnlyList<string> arguments, ref int index)
    {
        List<string> words = ["["];
        int depth = 1;
        while (++index < arguments.Count)
        {
            depth += arguments[index] switch { "[" => 1, "]" => -1, _ => 0 };
            if (depth == 0)
            {
                return words;
            }
            words.Add(arguments[index]);
        }
        throw new CommandException("a [ has no ] that belongs to it; both stand alone, with spaces around them");
    }

    private static KeyValuePair<string, string> Long(
        string argument, IReadOnlyList<string> arguments, IReadOnlyList<VerbOption> known, ref int index)
    {
        int equals = argument.IndexOf('=', StringComparison.Ordinal);
        string name = equals < 0 ? argument[2..] : argument[2..equals];
        VerbOption option = known.FirstOrDefault(o => o.Names.Contains(name)) ?? throw Unknown("--" + name);
        if (equals >= 0)
        {
            return option.Argument is not null
                ? new(option.Names[0], argument[(equals + 1)..])
                : throw new CommandException($"the option --{name} takes no argument");
        }
        return new(
            option.Names[0],
            option.Argument is null || option.IsArgumentOptional ? "" : Following(option, "--" + name, arguments, ref index));
    }

    private static void Short(
        string argument,
        IReadOnlyList<string> arguments,
        IReadOnlyList<VerbOption> known,
        ref int index,
        List<KeyValuePair<string, string>> options)
    {
        for (int i = 1; i < argument.Length; i++)
        {
            char letter = argument[i];
            VerbOption option = known.FirstOrDefault(o => o.Letter == letter) ?? throw Unknown("-" + letter);
            if (option.Argument is not null && !option.IsArgumentOptional)
            {
                string rest = argument[(i + 1)..];
                options.Add(new(
                    option.Names[0], rest.Length > 0 ? rest : Following(option, "-" + letter, arguments, ref index)));
                return;
            }
            options.Add(new(option.Names[0], ""));
        }
    }

    private static string Following(VerbOption option, string shown, IReadOnlyList<string> arguments, ref int index)
        => ++index < arguments.Count
            ? arguments[index]
            : throw new CommandException($"the option {shown} needs an argument: {option.Argument}");

    private static CommandException Unknown(string option)
        => new($"there is no option {option}; --help lists them");
}
