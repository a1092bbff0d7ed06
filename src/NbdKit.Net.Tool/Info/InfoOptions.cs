namespace NbdKit.Tool.Info;

/// <summary>The command line of <c>nbdkit-net info</c>: that of nbdinfo, as far as it goes.</summary>
internal sealed record InfoOptions
{
    public const string Usage = """
        nbdkit-net info [--json] URI
        nbdkit-net info --size URI
        nbdkit-net info -L|--list [--json] URI
        nbdkit-net info --map[=CONTEXT] [--totals] [--json] URI

        Shows what an NBD server and its exports are, or where in an export there is data.

        Options:
          -L, --list             all exports that the server lists
              --size             the size of the export in bytes, and nothing else
              --map[=CONTEXT]    the extents of the export in a meta context (default base:allocation)
              --totals           with --map, how much there is of each type
              --json             for programs
              --help             show this

        """;

    /// <summary>The server and the export; never null unless help is wanted.</summary>
    public string? Uri { get; private init; }

    public bool Help { get; private init; }

    public bool Json { get; private init; }

    public bool List { get; private init; }

    public bool Size { get; private init; }

    /// <summary>The meta context to map, or null.</summary>
    public string? Map { get; private init; }

    public bool Totals { get; private init; }

    /// <exception cref="CommandException">The arguments make no sense; the message says why.</exception>
    public static InfoOptions Parse(IReadOnlyList<string> arguments)
    {
        var options = new InfoOptions();
        bool literal = false;
        foreach (string argument in arguments)
        {
            if (argument == "--" && !literal)
            {
                literal = true;
            }
            else if (literal || argument.Length == 0 || argument[0] != '-')
            {
                options = options.Uri is null
                    ? options with { Uri = argument }
                    : throw new CommandException("there is more than one URI");
            }
            else
            {
                options = options.With(argument);
            }
        }
        return options.Checked();
    }

    private InfoOptions With(string argument) => argument switch
    {
        "--help" => this with { Help = true },
        "--json" => this with { Json = true },
        "-L" or "--list" => this with { List = true },
        "--size" => this with { Size = true },
        "--totals" or "--total" => this with { Totals = true },
        "--map" => this with { Map = ExtentList.BaseAllocation },
        _ when argument.StartsWith("--map=", StringComparison.Ordinal) && argument.Length > 6
            => this with { Map = argument[6..] },
        _ => throw new CommandException($"info has no option {argument}; {Command.ProgramName} info --help lists them"),
    };

    private InfoOptions Checked()
        => Help ? this
            : (List ? 1 : 0) + (Size ? 1 : 0) + (Map is not null ? 1 : 0) > 1
                ? throw new CommandException("only one of --list, --size and --map is possible")
            : Totals && Map is null ? throw new CommandException("--totals needs --map")
            : Uri is null ? throw new CommandException("the URI of an NBD server is missing")
            : this;
}
