using NbdKit.Tool.Benching;
using NbdKit.Tool.Copying;

namespace NbdKit.Tool;

/// <summary>One run of the command, from its arguments to its exit status.</summary>
internal static class Command
{
    public const string ProgramName = "nbdkit-net";

    public static async Task<int> RunAsync(string[] arguments)
    {
        string name = ProgramName;
        bool verbose = false;
        try
        {
            if (arguments is ["copy", ..])
            {
                return await CopyCommand.RunAsync(ArgumentFile.Expand(arguments[1..]), new NbdCatalogue()).ConfigureAwait(false);
            }
            if (arguments is ["bench", ..])
            {
                return await BenchCommand.RunAsync(ArgumentFile.Expand(arguments[1..]), new NbdCatalogue()).ConfigureAwait(false);
            }
            CommandOptions options = CommandLine.Parse(ArgumentFile.Expand(arguments));
            (name, verbose) = (options.Name, options.Verbose);
            if (options.Mode == CommandMode.Serve)
            {
                return await Serving.RunAsync(options, new NbdCatalogue()).ConfigureAwait(false);
            }
            await Console.OpenStandardOutput().WriteAsync(StandardText.Bytes(Answer(options))).ConfigureAwait(false);
            return 0;
        }
        catch (Exception e)
        {
            string text = verbose && e is not CommandException { InnerException: null }
                ? $"{StandardText.OneLine(e)}\n{e}"
                : StandardText.OneLine(e);
            StandardText.WriteError($"{name}: {text}");
            return 1;
        }
    }

    private static string Answer(CommandOptions options) => options.Mode switch
    {
        CommandMode.Help => Help.Text(new NbdCatalogue(), options.Plugin, options.Filters),
        CommandMode.Version => Probing.Version(new NbdCatalogue(), options.Plugin, options.Filters),
        CommandMode.DumpConfig => Probing.Config(new NbdCatalogue()),
        CommandMode.DumpPlugin => Probing.Plugin(new NbdCatalogue(), options),
        CommandMode.LongOptions => Probing.LongOptions(),
        _ => Probing.ShortOptions(),
    };
}
