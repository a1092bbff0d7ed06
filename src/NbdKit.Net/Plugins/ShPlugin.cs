using System.Text;
using NbdKit.Plugins.Scripts;

namespace NbdKit.Plugins;

/// <summary>
/// A disk that a script or any other program makes up: it is run once for each call, with the name of the method and its
/// arguments (nbdkit-sh-plugin(3)). Set either <see cref="Path"/> or <see cref="Text"/>. Linux only.
/// </summary>
/// <remarks>
/// <para>
/// The methods, their arguments, exit codes, the variable <c>tmpdir</c> and what is read from standard input, output and error
/// are nbdkit's: <c>load</c>, <c>magic_config_key</c>, <c>config</c>, <c>config_complete</c>, <c>thread_model</c>,
/// <c>get_ready</c>, <c>after_fork</c>, <c>preconnect</c>, <c>list_exports</c>, <c>default_export</c>, <c>open</c>,
/// <c>get_size</c>, <c>block_size</c>, <c>export_description</c>, <c>can_write</c> and the others of its kind, <c>pread</c>,
/// <c>pwrite</c>, <c>flush</c>, <c>trim</c>, <c>zero</c>, <c>cache</c>, <c>extents</c>, <c>close</c>, <c>unload</c>, and
/// <c>dump_plugin</c> for <see cref="ScriptPlugin.DumpAsync"/>. The exit
/// codes are 0 (done, yes), 1 (failed), 2 (no such method), 3 (no), 4 and 5 (stop the server), 6 (cut the client off), 7 and 8
/// (ask the client to leave); any other is a failure. The first word on standard error may name the error (<c>ENOSPC</c>).
/// </para>
/// <para>
/// Requests reach the script as its <c>thread_model</c> allows, one at a time by default; the plugin keeps to that itself, so that
/// <see cref="ThreadModel"/> is parallel. What a client sends (export names, lengths, data) is an argument or standard input,
/// never the text of a command. A client that leaves takes its running scripts with it: they are killed with all that they have
/// started, as are those that run longer than <see cref="Timeout"/> or print more than they were asked for.
/// </para>
/// <para>
/// Unlike with nbdkit, a script need not read what <c>pwrite</c> gives it: its exit code says whether it has succeeded. A last
/// line counts as one without its end. What is printed must be UTF-8, apart from data. A script that leaves a process in the
/// background is waited for no longer than two seconds after its end. Lengths of <c>trim</c>, <c>zero</c>, <c>cache</c> and
/// <c>extents</c> may exceed 32 bits.
/// </para>
/// </remarks>
public sealed class ShPlugin : ScriptPlugin
{
    private string? _script;

    /// <summary>The plugin in the catalogue: <c>sh</c>, with the magic parameter <c>script</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "sh",
        "runs a script for each call; any other parameter is the script's",
        [
            new NbdParameter("script", "the script or program, or - to read the script from standard input")
            {
                IsRequired = true,
                IsRepeatable = true,
            },
        ],
        Create)
    {
        MagicParameter = "script",
        TakesOtherParameters = true,
    };

    /// <summary>The script or program. It must be executable; without <c>#!</c> it is one for <c>/bin/sh</c>.</summary>
    /// <value>A full path: a relative one is resolved when it is set. Null by default.</value>
    /// <exception cref="ArgumentException">The value is empty or not a path.</exception>
    public string? Path { get; init => field = value is null ? null : System.IO.Path.GetFullPath(value); }

    /// <summary>The text of the script, which is kept in a file for as long as the plugin lives. Null by default.</summary>
    public string? Text { get; init; }

    /// <inheritdoc/>
    public override string Name => "sh";

    /// <summary>Loads and configures the script.</summary>
    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">
    /// Neither or both of <see cref="Path"/> and <see cref="Text"/> are set.
    /// </exception>
    /// <exception cref="NbdException">The script cannot be run, or says that something is wrong.</exception>
    public override async ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => await Host.ReadyAsync(await LoadAsync(cancellationToken).ConfigureAwait(false), cancellationToken).ConfigureAwait(false);

    private protected override async ValueTask<IEnumerable<KeyValuePair<string, string>>> LoadAsync(CancellationToken cancellationToken)
    {
        if (Path is null == Text is null)
        {
            throw new InvalidOperationException("The sh plugin runs either a path or a text: set exactly one of them.");
        }
        ScriptHost host = Host;
        host.MakeFolder();
        _script = Path ?? await WriteScriptAsync(host.Folder, cancellationToken).ConfigureAwait(false);
        await host.CallAsync(new ScriptCall("load"), cancellationToken).ConfigureAwait(false);
        IsLoaded = true;
        return Named(await host.TextAsync(new ScriptCall("magic_config_key"), cancellationToken).ConfigureAwait(false));
    }

    private protected override string[]? Find(string method) => [_script!];

    private static ShPlugin Create(NbdParameters parameters)
    {
        _ = parameters.Required("script");
        if (parameters.All[0].Key != "script")
        {
            throw new ArgumentException("sh: the first parameter must be script=.");
        }
        string script = parameters.All[0].Value;
        return new ShPlugin
        {
            Path = script == "-" ? null : script,
            Text = script == "-" ? ReadStandardInput() : null,
            Parameters = [.. parameters.All.Skip(1).Select(p => p.Key == "script" ? new("", p.Value) : p)],
        };
    }

    private static string ReadStandardInput()
    {
        using var reader = new StreamReader(Console.OpenStandardInput(), Encoding.UTF8);
        return reader.ReadToEnd();
    }

    private async Task<string> WriteScriptAsync(string folder, CancellationToken cancellationToken)
    {
        string path = System.IO.Path.Join(folder, "inline-script.sh");
        await File.WriteAllTextAsync(path, Text!, cancellationToken).ConfigureAwait(false);
        if (!OperatingSystem.IsWindows())
        {
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserExecute);
        }
        return path;
    }

    private IEnumerable<KeyValuePair<string, string>> Named(string? magic)
    {
        foreach ((string name, string value) in Parameters)
        {
            yield return name.Length > 0 || magic is not null
                ? new(name.Length > 0 ? name : ScriptText.Chomp(magic!), value)
                : throw new NbdException(
                    NbdError.InvalidArgument, $"sh: '{value}' is not of the form name=value, and the script has no magic_config_key");
        }
    }
}
