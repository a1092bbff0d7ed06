using NbdKit.Plugins.Scripts;

namespace NbdKit.Plugins;

/// <summary>
/// A disk that fragments of shell script make up, one for each method (nbdkit-eval-plugin(1)), which <c>/bin/sh</c> runs. All
/// else is as with <see cref="ShPlugin"/>. Linux only.
/// </summary>
/// <remarks>
/// <para>
/// The fragments get the arguments of their method as <c>$2</c>, <c>$3</c> and so on: what a client sends is never part of the text
/// that the shell reads. A <c>can_</c> method that is missing is taken to say yes if there is the method that it is about.
/// </para>
/// <para>Unlike with nbdkit, the order of the parameters does not matter: <c>config</c> may come after what it is to be told.</para>
/// </remarks>
public sealed class EvalPlugin : ScriptPlugin
{
    private const string ForMissing = "missing";

    private static readonly string[] Methods =
    [
        "after_fork", "block_size", "cache", "can_cache", "can_extents", "can_fast_zero", "can_flush", "can_fua",
        "can_multi_conn", "can_trim", "can_write", "can_zero", "close", "config", "config_complete", "default_export",
        "dump_plugin", "export_description", "extents", "flush", "get_ready", "get_size", "is_rotational", "list_exports",
        ForMissing, "open", "pread", "preconnect", "pwrite", "thread_model", "trim", "unload", "zero",
    ];

    /// <summary>The plugin in the catalogue, as <c>eval</c>.</summary>
    public static NbdPluginEntry Entry { get; } = new(
        "eval",
        "runs a fragment of shell script for each call; any other parameter goes to config=",
        [
            .. Methods.Select(method => new NbdParameter(
                method,
                method == ForMissing ? "the script for methods that are not given (default: exit 2)" : $"the script for the method {method}")),
        ],
        parameters => new EvalPlugin
        {
            Scripts = Methods.Where(method => parameters.Text(method) is not null)
                .ToDictionary(method => method, method => parameters.Text(method)!, StringComparer.Ordinal),
            Parameters = [.. parameters.All.Where(parameter => !Methods.Contains(parameter.Key))],
        })
    {
        TakesOtherParameters = true,
    };

    /// <summary>
    /// The fragments, by method; that of <c>missing</c> stands for every method that has none. None by default, and at least
    /// <c>get_size</c> and <c>pread</c> are needed.
    /// </summary>
    /// <exception cref="ArgumentException">There is no such method.</exception>
    public IReadOnlyDictionary<string, string> Scripts
    {
        get;
        init
        {
            ArgumentNullException.ThrowIfNull(value);
            foreach (string method in value.Keys)
            {
                if (!Methods.Contains(method))
                {
                    throw new ArgumentException($"There is no method '{method}'. Known: {string.Join(", ", Methods)}.", nameof(value));
                }
            }
            field = new Dictionary<string, string>(value, StringComparer.Ordinal);
        }
    } = new Dictionary<string, string>();

    /// <inheritdoc/>
    public override string Name => "eval";

    /// <summary>Configures the scripts.</summary>
    /// <inheritdoc/>
    /// <exception cref="NbdException">A script cannot be run, or says that something is wrong.</exception>
    public override async ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken)
        => await Host.ReadyAsync(await LoadAsync(cancellationToken).ConfigureAwait(false), cancellationToken).ConfigureAwait(false);

    private protected override ValueTask<IEnumerable<KeyValuePair<string, string>>> LoadAsync(CancellationToken cancellationToken)
    {
        Host.MakeFolder();
        IsLoaded = true;
        return new(Parameters);
    }

    private protected override string[]? Find(string method)
    {
        string about = method == "can_write" ? "pwrite" : method.StartsWith("can_", StringComparison.Ordinal) ? method[4..] : "";
        string? text = Scripts.GetValueOrDefault(method) ?? about switch
        {
            "pwrite" or "flush" or "trim" or "zero" or "extents" when Scripts.ContainsKey(about) => "exit 0",
            "cache" when Scripts.ContainsKey(about) => "echo native",
            _ => Scripts.GetValueOrDefault(ForMissing),
        };
        return text is null ? null : ["/bin/sh", "-c", text, method];
    }
}
