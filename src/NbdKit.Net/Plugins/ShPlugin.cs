using System.Text;
using NbdKit.Layers;
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
/// <c>pwrite</c>, <c>flush</c>, <c>trim</c>, <c>zero</c>, <c>cache</c>, <c>extents</c>, <c>close</c> and <c>unload</c>. The exit
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
public sealed class ShPlugin : INbdPlugin, IAsyncDisposable
{
    private static readonly TimeSpan LongestUnload = TimeSpan.FromSeconds(10);

    private readonly Lazy<ScriptHost> _host;
    private string? _script;
    private bool _loaded;

    /// <summary>Creates a plugin that has no script yet.</summary>
    public ShPlugin() => _host = new(
        () => new ScriptHost(Name, _ => [_script!], MaxProcesses, Timeout, TimeProvider));

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

    /// <summary>
    /// What <c>config</c> gets, in this order. An empty name stands for the one that the script calls its
    /// <c>magic_config_key</c>. None by default.
    /// </summary>
    public IReadOnlyList<KeyValuePair<string, string>> Parameters { get; init; } = [];

    /// <summary>The processes that run at a time at most, if the script's thread model allows more. 16 by default.</summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is less than 1.</exception>
    public int MaxProcesses
    {
        get;
        init
        {
            ArgumentOutOfRangeException.ThrowIfLessThan(value, 1);
            field = value;
        }
    } = 16;

    /// <summary>
    /// The longest that one call may take before it is killed, and fails with EIO.
    /// <see cref="System.Threading.Timeout.InfiniteTimeSpan"/> by default.
    /// </summary>
    /// <exception cref="ArgumentOutOfRangeException">The value is neither positive nor infinite.</exception>
    public TimeSpan Timeout
    {
        get;
        init
        {
            if (value != System.Threading.Timeout.InfiniteTimeSpan)
            {
                ArgumentOutOfRangeException.ThrowIfLessThanOrEqual(value, TimeSpan.Zero);
                _ = TimerRange.Checked(value);
            }
            field = value;
        }
    } = System.Threading.Timeout.InfiniteTimeSpan;

    /// <summary>The clock of <see cref="Timeout"/>. The system's by default.</summary>
    public TimeProvider TimeProvider { get; init; } = TimeProvider.System;

    /// <inheritdoc/>
    public string Name => "sh";

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>Loads and configures the script.</summary>
    /// <inheritdoc/>
    /// <exception cref="InvalidOperationException">
    /// Neither or both of <see cref="Path"/> and <see cref="Text"/> are set.
    /// </exception>
    /// <exception cref="NbdException">The script cannot be run, or says that something is wrong.</exception>
    public async ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
    {
        if (Path is null == Text is null)
        {
            throw new InvalidOperationException("The sh plugin runs either a path or a text: set exactly one of them.");
        }
        ScriptHost host = _host.Value;
        host.MakeFolder();
        _script = Path ?? await WriteScriptAsync(host.Folder, cancellationToken).ConfigureAwait(false);
        await host.CallAsync(new ScriptCall("load"), cancellationToken).ConfigureAwait(false);
        _loaded = true;
        string? magic = await host.TextAsync(new ScriptCall("magic_config_key"), cancellationToken).ConfigureAwait(false);
        await host.ReadyAsync(Named(magic), cancellationToken).ConfigureAwait(false);
    }

    /// <inheritdoc/>
    public ValueTask StartAsync(CancellationToken cancellationToken) => _host.Value.StartAsync(cancellationToken);

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => _host.Value.PreconnectAsync(connection, readOnly, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => _host.Value.ListExportsAsync(exports, readOnly, connection, cancellationToken);

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => _host.Value.DefaultExportAsync(readOnly, connection, cancellationToken);

    /// <inheritdoc/>
    /// <exception cref="NbdException">The script refuses.</exception>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => _host.Value.OpenAsync(context, cancellationToken);

    /// <summary>Unloads the script, if it was loaded, and removes its directory.</summary>
    public ValueTask DisposeAsync() => UnloadAsync(_host.Value, _loaded);

    /// <summary>Ends what scripts have kept; how they take it is of no interest any more.</summary>
    internal static async ValueTask UnloadAsync(ScriptHost host, bool loaded)
    {
        try
        {
            if (loaded)
            {
                using var limit = new CancellationTokenSource(LongestUnload);
                await host.CallAsync(new ScriptCall("unload"), limit.Token).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is NbdException or OperationCanceledException)
        {
            // As nbdkit: nobody is left to be told.
        }
        finally
        {
            host.Dispose();
        }
    }

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
