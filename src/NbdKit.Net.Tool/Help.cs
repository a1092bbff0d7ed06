using System.Text;

namespace NbdKit.Tool;

/// <summary>The texts of <c>--help</c>.</summary>
internal static class Help
{
    private const int OptionColumn = 34;

    /// <summary>The general help, or that of the layers named.</summary>
    /// <exception cref="ArgumentException">There is no such plugin or filter.</exception>
    public static string Text(NbdCatalogue catalogue, string? plugin, IReadOnlyList<string> filters)
    {
        var text = new StringBuilder();
        if (plugin is null && filters.Count == 0)
        {
            General(text, catalogue);
            return text.ToString();
        }
        foreach (string filter in filters)
        {
            NbdFilterEntry entry = catalogue.Filter(filter);
            Layer(text, "filter", entry.Name, entry.Description, entry.Parameters, null);
        }
        // "--help cow" is clear enough, although the place of a filter is elsewhere.
        if (plugin is not null
            && catalogue.Filters.FirstOrDefault(f => f.Name == plugin) is { } meant
            && !catalogue.Plugins.Any(p => p.Name == plugin))
        {
            Layer(text, "filter", meant.Name, meant.Description, meant.Parameters, null);
        }
        else if (plugin is not null)
        {
            NbdPluginEntry entry = catalogue.Plugin(plugin);
            Layer(text, "plugin", entry.Name, entry.Description, entry.Parameters, entry.MagicParameter);
        }
        return text.ToString();
    }

    private static void General(StringBuilder text, NbdCatalogue catalogue)
    {
        text.Append("""
            nbdkit-net [OPTION...] PLUGIN [[KEY=]VALUE...]
            nbdkit-net info [OPTION...] URI
            nbdkit-net copy [OPTION...] SRC DST
            nbdkit-net bench [OPTION...] DISK

            Serves the disk that PLUGIN provides to NBD clients and prints the URI to connect to.
            info shows what another NBD server is, copy copies disks, and bench measures one: nbdkit-net copy --help.
            @FILE on the command line stands for the arguments in FILE, one a line; # begins a comment.

            Options:

            """);
        foreach (OptionEntry option in OptionEntry.All)
        {
            if (option.Id != OptionId.Unsupported)
            {
                Row(text, option.Synopsis, option.Help, OptionColumn);
            }
        }
        text.Append("\nOptions of nbdkit that are not supported:\n ");
        foreach (OptionEntry option in OptionEntry.All)
        {
            if (option.Id == OptionId.Unsupported)
            {
                text.Append(" --").Append(option.Names[0]);
            }
        }
        text.Append("\n\nPlugins:\n");
        foreach (NbdPluginEntry plugin in catalogue.Plugins)
        {
            Row(text, plugin.Name, plugin.Description, 20);
        }
        text.Append("\nFilters:\n");
        foreach (NbdFilterEntry filter in catalogue.Filters)
        {
            Row(text, filter.Name, filter.Description, 20);
        }
        text.Append("\nThe parameters of a plugin or filter: nbdkit-net [--filter=NAME...] PLUGIN --help\n");
    }

    private static void Layer(
        StringBuilder text,
        string kind,
        string name,
        string description,
        IReadOnlyList<NbdParameter> parameters,
        string? magic)
    {
        if (text.Length > 0)
        {
            text.Append('\n');
        }
        text.Append(kind).Append(' ').Append(name).Append(": ").Append(description).Append('\n');
        if (parameters.Count == 0)
        {
            text.Append("  It has no parameters.\n");
        }
        int column = 0;
        foreach (NbdParameter parameter in parameters)
        {
            column = Math.Max(column, Synopsis(parameter, magic).Length + 4);
        }
        foreach (NbdParameter parameter in parameters)
        {
            string help = (parameter.IsRequired ? "(required) " : "") + (parameter.IsRepeatable ? "(repeatable) " : "")
                + parameter.Help;
            Row(text, Synopsis(parameter, magic), help, column);
        }
    }

    private static string Synopsis(NbdParameter parameter, string? magic)
        => parameter.Name == magic ? $"[{parameter.Name}=]VALUE" : $"{parameter.Name}=VALUE";

    private static void Row(StringBuilder text, string left, string right, int column)
    {
        text.Append("  ").Append(left);
        int gap = column - left.Length - 2;
        if (gap < 1)
        {
            text.Append('\n');
            gap = column;
        }
        text.Append(' ', gap).Append(right).Append('\n');
    }
}
