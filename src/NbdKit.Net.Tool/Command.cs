using NbdKit.Tool.Benching;
using NbdKit.Tool.Copying;
using NbdKit.Tool.Info;

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
            IReadOnlyList<string> expanded = ArgumentFile.Expand(arguments);
            switch (expanded.FirstOrDefault())
            {
                case InfoCommand.Verb:
                    using (Stream output = Console.OpenStandardOutput())
                    {
                        await InfoCommand.RunAsync([.. expanded.Skip(1)], output).ConfigureAwait(false);
                    }
                    return 0;
                case CopyCommand.Verb:
                    return await CopyCommand.RunAsync([.. expanded.Skip(1)], new NbdCatalogue()).ConfigureAwait(false);
                case BenchCommand.Verb:
                    return await BenchCommand.RunAsync([.. expanded.Skip(1)], new NbdCatalogue()).ConfigureAwait(false);
            }
            CommandOptions options = CommandLine.Parse(expanded);
            (name, verbose) = (options.Name, options.Verbose);
            if (options.Mode == CommandMode.Serve)
            {
                return await Serving.RunAsync(options, new NbdCatalogue()).ConfigureAwait(false);
            }
            await Console.OpenStandardOutput().WriteAsync(StandardText.Bytes(await AnswerAsync(options).ConfigureAwait(false))).ConfigureAwait(false);
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

    private static async Task<string> AnswerAsync(CommandOptions options) => options.Mode switch
    {
        CommandMode.Help => Help.Text(new NbdCatalogue(), options.Plugin, options.Filters),
        CommandMode.Version => Probing.Version(new NbdCatalogue(), options.Plugin, options.Filters),
        CommandMode.DumpConfig => Probing.Config(new NbdCatalogue()),
        CommandMode.DumpPlugin => await Probing.PluginAsync(new NbdCatalogue(), options).ConfigureAwait(false),
        CommandMode.LongOptions => Probing.LongOptions(),
        _ => Probing.ShortOptions(),
    };
}
