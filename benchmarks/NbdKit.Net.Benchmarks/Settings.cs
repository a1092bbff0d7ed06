using NbdKit.Benchmarks.Servers;

namespace NbdKit.Benchmarks;

/// <summary>The options of the modes; each mode has its own defaults.</summary>
internal sealed record Settings
{
    public const string Help = """
          --rounds N          rounds; figures are medians over them
          --seconds S         time of each measurement
          --only NAME,...     only this work or subject (compare)
          --connections N     idle connections (connections)
          --size SIZE         size of the image (copy)
          --directory DIR     where files and sockets are, on a real disk (default /var/tmp)
          --output FILE       the file whose section is replaced (default benchmarks/RESULTS.md; none with --short and --only)
          --readme            replaces the table of README.md too (compare)
          --tool FILE         another nbdkit-net or nbdkit-net.dll than the one that was built along
          --short             0.2 s, one round, small: to see that it works
        """;

    private readonly int? _rounds;
    private readonly double? _seconds;
    private readonly string? _output;

    private Settings(ReadOnlySpan<string> arguments)
    {
        for (int i = 0; i < arguments.Length; i++)
        {
            string name = arguments[i];
            if (name is "--short")
            {
                IsShort = true;
                continue;
            }
            if (name is "--readme")
            {
                WritesReadme = true;
                continue;
            }
            if (++i == arguments.Length)
            {
                throw new UsageException($"{name}: an unknown option, or its value is missing");
            }
            string value = arguments[i];
            try
            {
                switch (name)
                {
                    case "--rounds": _rounds = (int)NbdParse.Integer(value, 1, 1000); break;
                    case "--seconds": _seconds = NbdParse.Delay(value).TotalSeconds; break;
                    case "--only": Only = value.Split(','); break;
                    case "--connections": Connections = (int)NbdParse.Integer(value, 1, 1_000_000); break;
                    case "--size": Size = NbdParse.Size(value); break;
                    case "--directory": Directory = Path.GetFullPath(value); break;
                    case "--output": _output = Path.GetFullPath(value); break;
                    case "--tool": Tool = Path.GetFullPath(value); break;
                    default: throw new UsageException($"{name}: there is no such option");
                }
            }
            catch (FormatException e)
            {
                throw new UsageException($"{name}: {e.Message}", e);
            }
        }
    }

    public bool IsShort { get; }

    public bool WritesReadme { get; }

    /// <summary>Names of work or of subjects; empty for all.</summary>
    public IReadOnlyList<string> Only { get; } = [];

    public int? Connections { get; }

    public long? Size { get; }

    public string Directory { get; } = System.IO.Directory.Exists("/var/tmp") ? "/var/tmp" : Path.GetTempPath();

    public string? Tool { get; }

    /// <summary>Where the report goes, or null if it is only printed.</summary>
    public string? Output => _output ?? (IsShort || Only.Count > 0 ? null : Path.Combine(Repository.Root, "benchmarks", "RESULTS.md"));

    public static Settings Parse(ReadOnlySpan<string> arguments) => new(arguments);

    public int Rounds(int usual) => _rounds ?? (IsShort ? 1 : usual);

    public TimeSpan Duration(double usual) => TimeSpan.FromSeconds(_seconds ?? (IsShort ? 0.2 : usual));
}
