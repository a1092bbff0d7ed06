namespace NbdKit.Tool.Benching;

/// <summary>Parses the command line of <c>bench</c>.</summary>
internal static class BenchCommandLine
{
    /// <summary>All options, in the order in which help shows them.</summary>
    public static IReadOnlyList<VerbOption> Known { get; } =
    [
        new('\0', ["rw"], "PATTERN", "read, write, randread or randwrite (default randread)"),
        new('b', ["block-size"], "SIZE", "bytes of a request (default 4K)"),
        new('d', ["depth"], "N", "requests in flight on each connection (default 16)"),
        new('C', ["connections"], "N", "connections, if the disk allows several (default 1)"),
        new('t', ["seconds"], "DELAY", "how long it takes (default 5)"),
        new('v', ["verbose"], null, "log everything"),
        new('\0', ["help"], null, "show this help"),
    ];

    /// <summary>Parses and checks the arguments after <c>bench</c>.</summary>
    /// <exception cref="CommandException">They make no sense; the message says why.</exception>
    public static BenchOptions Parse(IReadOnlyList<string> arguments)
    {
        VerbLine line = VerbLine.Parse(arguments, Known);
        var options = new BenchOptions();
        foreach ((string name, string value) in line.Options)
        {
            options = Apply(options, name, value);
        }
        if (options.Help)
        {
            return options;
        }
        return line.Bare.Count == 1
            ? options with { Disk = DiskArgument.Parse(line.Bare[0]) }
            : throw new CommandException(
                $"bench takes one disk, and {line.Bare.Count} were given; {Command.ProgramName} bench --help tells more");
    }

    private static BenchOptions Apply(BenchOptions options, string name, string value) => name switch
    {
        "rw" => options with
        {
            Pattern = value switch
            {
                "read" => BenchPattern.Read,
                "write" => BenchPattern.Write,
                "randread" => BenchPattern.RandomRead,
                "randwrite" => BenchPattern.RandomWrite,
                _ => throw new CommandException($"--rw={value}: the value must be read, write, randread or randwrite"),
            },
        },
        "block-size" => options with { BlockSize = (int)VerbValue.Size(name, value, 1, 32 << 20) },
        "depth" => options with { Depth = VerbValue.Number(name, value, 1, 65_536) },
        "connections" => options with { Connections = VerbValue.Number(name, value, 1, 1024) },
        "seconds" => options with { Duration = VerbValue.Parsed(name, value, NbdParse.Delay) },
        "verbose" => options with { Verbose = true },
        _ => options with { Help = true },
    };
}
