using System.Reflection;
using System.Runtime.InteropServices;
using System.Text;
using NbdKit.Plugins;

namespace NbdKit.Tool;

/// <summary>The answers to options that ask about the command itself, for people and scripts.</summary>
internal static class Probing
{
    public static string Version(NbdCatalogue catalogue, string? plugin, IReadOnlyList<string> filters)
    {
        string version = VersionNumber();
        var text = new StringBuilder($"{Command.ProgramName} {version}\n");
        foreach (string filter in filters)
        {
            text.Append(catalogue.Filter(filter).Name).Append(' ').Append(version).Append('\n');
        }
        if (plugin is not null)
        {
            text.Append(catalogue.Plugin(plugin).Name).Append(' ').Append(version).Append('\n');
        }
        return text.ToString();
    }

    public static string Config(NbdCatalogue catalogue)
    {
        string version = VersionNumber();
        string[] numbers = version.Split('.', '-');
        return $"""
            binary={Binary()}
            exit_with_parent={(ParentWatch.IsSupported ? "yes" : "no")}
            filters={string.Join(' ', catalogue.Filters.Select(f => f.Name))}
            host_cpu={Processor()}
            host_os={OperatingSystemName()}
            name={Command.ProgramName}
            plugins={string.Join(' ', catalogue.Plugins.Select(p => p.Name))}
            runtime={RuntimeInformation.FrameworkDescription}
            root_tls_certificates_dir={TlsSetup.SystemDirectory}
            selinux=no
            tls=yes
            version={version}
            version_major={numbers[0]}
            version_minor={numbers[1]}

            """;
    }

    public static async Task<string> PluginAsync(NbdCatalogue catalogue, CommandOptions options)
    {
        NbdPluginEntry entry = catalogue.Plugin(options.Plugin!);
        var text = new StringBuilder($"path={Binary()}\nname={entry.Name}\nversion={VersionNumber()}\n");
        (ThreadModel? model, string facts) = await ChainAsync(catalogue, entry, options).ConfigureAwait(false);
        if (model is not null)
        {
            text.Append("thread_model=").Append(NameOf(model.Value)).Append('\n');
        }
        if (entry.MagicParameter is { } magic)
        {
            text.Append("magic_config_key=").Append(magic).Append('\n');
        }
        text.Append("description=").Append(entry.Description).Append('\n');
        text.Append("parameters=").AppendJoin(' ', entry.Parameters.Select(p => p.Name)).Append('\n');
        foreach (string filter in options.Filters)
        {
            text.Append("filter_").Append(catalogue.Filter(filter).Name).Append("_parameters=")
                .AppendJoin(' ', catalogue.Filter(filter).Parameters.Select(p => p.Name)).Append('\n');
        }
        if (entry.Name is "sh" or "eval")
        {
            text.Append("max_known_status=").Append(ScriptPlugin.MaxKnownStatus).Append('\n');
        }
        return text.Append(facts).ToString();
    }

    public static string LongOptions()
    {
        var text = new StringBuilder();
        foreach (OptionEntry option in OptionEntry.All.Where(o => o.Id != OptionId.Unsupported))
        {
            foreach (string name in option.Names)
            {
                text.Append("--").Append(name).Append('\n');
            }
        }
        return text.ToString();
    }

    public static string ShortOptions()
    {
        var text = new StringBuilder();
        foreach (OptionEntry option in OptionEntry.All.Where(o => o.Id != OptionId.Unsupported && o.Letter != '\0'))
        {
            text.Append('-').Append(option.Letter).Append('\n');
        }
        return text.ToString();
    }

    /// <summary>
    /// The thread model of the chain, or null if it takes more parameters to make one, and what a script says about itself.
    /// </summary>
    private static async Task<(ThreadModel? Model, string Facts)> ChainAsync(
        NbdCatalogue catalogue, NbdPluginEntry entry, CommandOptions options)
    {
        ScriptPlugin? script = null;
        catalogue.Add(entry with
        {
            Create = parameters =>
            {
                INbdPlugin plugin = entry.Create(parameters);
                script = plugin as ScriptPlugin;
                return plugin;
            },
        });
        NbdBackend chain;
        try
        {
            chain = catalogue.Compose(options.Plugin!, options.Filters, options.Parameters);
        }
        catch (ArgumentException) when (options.Parameters.Count == 0)
        {
            return (null, "");
        }
        await using (chain.ConfigureAwait(false))
        {
            string facts = script is null ? "" : await script.DumpAsync(CancellationToken.None).ConfigureAwait(false);
            return (script?.ScriptThreadModel < chain.ThreadModel ? script.ScriptThreadModel : chain.ThreadModel, facts);
        }
    }

    private static string NameOf(ThreadModel model) => model switch
    {
        ThreadModel.SerializeConnections => "serialize_connections",
        ThreadModel.SerializeAllRequests => "serialize_all_requests",
        ThreadModel.SerializeRequests => "serialize_requests",
        _ => "parallel",
    };

    private static string VersionNumber()
        => typeof(Probing).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!
            .InformationalVersion.Split('+')[0];

    /// <summary>The program, or the assembly that <c>dotnet</c> runs.</summary>
    private static string Binary()
        => Environment.ProcessPath is { } path && Path.GetFileNameWithoutExtension(path) != "dotnet"
            ? path
            : Path.Combine(AppContext.BaseDirectory, Command.ProgramName + ".dll");

    private static string Processor() => RuntimeInformation.ProcessArchitecture switch
    {
        Architecture.X64 => "x86_64",
        Architecture.Arm64 => "aarch64",
        Architecture other => other.ToString().ToLowerInvariant(),
    };

    private static string OperatingSystemName()
        => OperatingSystem.IsLinux() ? "linux"
            : OperatingSystem.IsMacOS() ? "darwin"
            : OperatingSystem.IsFreeBSD() ? "freebsd"
            : OperatingSystem.IsWindows() ? "windows"
            : "unknown";
}
