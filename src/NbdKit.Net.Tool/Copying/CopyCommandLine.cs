namespace NbdKit.Tool.Copying;

/// <summary>Parses the command line of <c>copy</c>: the options of nbdcopy(1), and some more.</summary>
internal static class CopyCommandLine
{
    /// <summary>All options, in the order in which help shows them.</summary>
    public static IReadOnlyList<VerbOption> Known { get; } =
    [
        new('\0', ["allocated"], null, "make no holes at the destination"),
        new('C', ["connections"], "N", "connections to each server that allows several (default 4)"),
        new('\0', ["destination-is-zero", "target-is-zero"], null, "the destination reads as zeroes: skip zeroes"),
        new('\0', ["flush"], null, "flush the destination at the end; this is the default"),
        new('\0', ["no-flush"], null, "do not flush it"),
        new('\0', ["no-extents"], null, "do not ask the source for its holes"),
        new('p', ["progress"], "FD", "show progress, or write it to a file descriptor as N/100") { IsArgumentOptional = true },
        new('\0', ["queue-size"], "SIZE", "bytes in memory at a time (default 16M)"),
        new('\0', ["request-size"], "SIZE", "bytes of a request, a power of two (default 256K)"),
        new('R', ["requests"], "N", "requests in flight (default 64)"),
        new('S', ["sparse"], "SIZE", "block size of the search for zeroes, or 0 (default 4K)"),
        new('\0', ["synchronous"], null, "one request at a time, over one connection"),
        new('T', ["threads"], "N", "accepted, without effect: requests are not threads here"),
        new('\0', ["resume"], "JOURNAL", "keep a journal, and go on where it ends (default DST.journal)") { IsArgumentOptional = true },
        new('\0', ["hash"], null, "print the SHA-256 of the source"),
        new('\0', ["verify"], null, "read the destination again and compare"),
        new('v', ["verbose"], null, "log everything, and say what was done"),
        new('\0', ["help"], null, "show this help"),
    ];

    /// <summary>Parses and checks the arguments after <c>copy</c>.</summary>
    /// <exception cref="CommandException">They make no sense; the message says why.</exception>
    public static CopyCommandOptions Parse(IReadOnlyList<string> arguments)
    {
        VerbLine line = VerbLine.Parse(arguments, Known);
        var options = new CopyCommandOptions();
        foreach ((string name, string value) in line.Options)
        {
            options = Apply(options, name, value);
        }
        return options.Help ? options : Checked(options, line.Bare);
    }

    private static CopyCommandOptions Apply(CopyCommandOptions options, string name, string value) => name switch
    {
        "allocated" => options with { Copy = options.Copy with { Allocated = true } },
        "connections" => options with { Connections = VerbValue.Number(name, value, 1, 1024) },
        "destination-is-zero" => options with { Copy = options.Copy with { DestinationIsZero = true } },
        "flush" => options with { Copy = options.Copy with { Flush = true } },
        "no-flush" => options with { Copy = options.Copy with { Flush = false } },
        "no-extents" => options with { Copy = options.Copy with { UseExtents = false } },
        "progress" => value.Length == 0
            ? options with { Progress = true }
            : options with { ProgressDescriptor = VerbValue.Number(name, value, 0, int.MaxValue) },
        "queue-size" => options with
        {
            Copy = options.Copy with { MaxBytesInFlight = VerbValue.Size(name, value, 1, long.MaxValue) },
        },
        "request-size" => options with
        {
            Copy = VerbValue.Parsed(
                name, value, text => options.Copy with { RequestSize = (int)Math.Min(int.MaxValue, NbdParse.Size(text)) }),
        },
        "requests" => options with
        {
            Copy = options.Copy with { MaxRequestsInFlight = VerbValue.Number(name, value, 1, 65_536) },
        },
        "sparse" => options with
        {
            Copy = VerbValue.Parsed(
                name, value, text => options.Copy with { SparseSize = (int)Math.Min(int.MaxValue, NbdParse.Size(text)) }),
        },
        "synchronous" => options with { Connections = 1, Copy = options.Copy with { MaxRequestsInFlight = 1 } },
        "threads" => VerbValue.Number(name, value, 0, int.MaxValue) >= 0 ? options : options,
        "resume" => options with
        {
            Resume = true,
            Copy = options.Copy with { JournalPath = value.Length == 0 ? options.Copy.JournalPath : value },
        },
        "hash" => options with { Copy = options.Copy with { ComputeHash = true } },
        "verify" => options with { Copy = options.Copy with { Verify = true } },
        "verbose" => options with { Verbose = true },
        _ => options with { Help = true },
    };

    private static CopyCommandOptions Checked(CopyCommandOptions options, IReadOnlyList<IReadOnlyList<string>> bare)
    {
        if (bare.Count != 2)
        {
            throw new CommandException(
                $"copy takes a source and a destination, and {bare.Count} were given; {Command.ProgramName} copy --help tells more");
        }
        bool fromInput = bare[0] is ["-"];
        bool toOutput = bare[1] is ["-"];
        bool toNowhere = bare[1] is ["null:"];
        if (bare[0] is ["null:"])
        {
            throw new CommandException("null: can only be the destination");
        }
        options = options with
        {
            Source = fromInput ? null : DiskArgument.Parse(bare[0]),
            Destination = toOutput || toNowhere ? null : DiskArgument.Parse(bare[1]),
            ToNowhere = toNowhere,
        };
        // The destination would be emptied before it is read.
        if (options is { Source.Path: { } from, Destination.Path: { } to } && Target(from) == Target(to))
        {
            throw new CommandException($"{options.Source!.Text} is both the source and the destination");
        }
        if (options.Resume && (options.Source is null || options.Destination is null))
        {
            throw new CommandException("--resume is for copies from a disk to a disk, not for standard input and output");
        }
        if (options.Copy.Verify && options.Destination is null)
        {
            throw new CommandException("--verify needs a destination that can be read again");
        }
        return options.Resume && options.Copy.JournalPath is null ? WithJournal(options) : options;
    }

    private static string Target(string path)
        => File.Exists(path) ? new FileInfo(path).ResolveLinkTarget(returnFinalTarget: true)?.FullName ?? path : path;

    private static CopyCommandOptions WithJournal(CopyCommandOptions options)
        => options.Destination!.Path is { } path
            ? options with { Copy = options.Copy with { JournalPath = path + ".journal" } }
            : throw new CommandException("--resume needs the path of its journal if the destination is not a file: --resume=JOURNAL");
}
