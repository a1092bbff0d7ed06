using NbdKit.Layers;
using NbdKit.Plugins.Scripts;

namespace NbdKit.Plugins;

/// <summary>What the plugins have in common that run a process for each call: <see cref="ShPlugin"/> and <see cref="EvalPlugin"/>.</summary>
public abstract class ScriptPlugin : INbdPlugin, IAsyncDisposable
{
    /// <summary>The largest exit code of scripts that has a meaning of its own.</summary>
    public const int MaxKnownStatus = 8;

    private static readonly TimeSpan LongestUnload = TimeSpan.FromSeconds(10);

    private readonly Lazy<ScriptHost> _host;

    private protected ScriptPlugin()
        => _host = new(() => new ScriptHost(Name, Find, MaxProcesses, Timeout, TimeProvider));

    /// <summary>
    /// What <c>config</c> gets, in this order. For <see cref="ShPlugin"/> an empty name stands for the one that the script calls its
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
    public abstract string Name { get; }

    /// <inheritdoc/>
    public ThreadModel ThreadModel => ThreadModel.Parallel;

    /// <summary>
    /// How many calls the scripts take at once, as their method <c>thread_model</c> says; known when the plugin is ready or was
    /// dumped. <see cref="ThreadModel.SerializeAllRequests"/> before that, and if they do not say.
    /// </summary>
    public ThreadModel ScriptThreadModel => Host.Model;

    private protected ScriptHost Host => _host.Value;

    /// <summary>Whether there is something to unload.</summary>
    private protected bool IsLoaded { get; set; }

    /// <inheritdoc/>
    public abstract ValueTask GetReadyAsync(ThreadModel model, CancellationToken cancellationToken);

    /// <inheritdoc/>
    public ValueTask StartAsync(CancellationToken cancellationToken) => Host.StartAsync(cancellationToken);

    /// <inheritdoc/>
    public ValueTask PreconnectAsync(NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => Host.PreconnectAsync(connection, readOnly, cancellationToken);

    /// <inheritdoc/>
    public ValueTask ListExportsAsync(
        ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => Host.ListExportsAsync(exports, readOnly, connection, cancellationToken);

    /// <inheritdoc/>
    public ValueTask<string?> DefaultExportAsync(
        bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
        => Host.DefaultExportAsync(readOnly, connection, cancellationToken);

    /// <inheritdoc/>
    /// <exception cref="NbdException">The script refuses.</exception>
    public ValueTask<INbdPluginHandle> OpenAsync(NbdOpenContext context, CancellationToken cancellationToken)
        => Host.OpenAsync(context, cancellationToken);

    /// <summary>
    /// Asks the scripts about themselves, as <c>nbdkit --dump-plugin</c> does: they are loaded and get their parameters, then their
    /// method <c>dump_plugin</c> is called. Not for a plugin that is served, too: only to be disposed of after it.
    /// </summary>
    /// <param name="cancellationToken">Kills the script that runs.</param>
    /// <returns>What <c>dump_plugin</c> printed, by custom lines of the form name=value, each with its end; empty if there is no such method.</returns>
    /// <exception cref="InvalidOperationException">A setting is wrong.</exception>
    /// <exception cref="NbdException">A script cannot be run, or says that something is wrong.</exception>
    public async ValueTask<string> DumpAsync(CancellationToken cancellationToken)
        => await Host.DumpAsync(await LoadAsync(cancellationToken).ConfigureAwait(false), cancellationToken).ConfigureAwait(false);

    /// <summary>Unloads the scripts, if they were loaded, and removes their directory; how they take it is of no interest any more.</summary>
    public async ValueTask DisposeAsync()
    {
        try
        {
            if (IsLoaded)
            {
                using var limit = new CancellationTokenSource(LongestUnload);
                await Host.CallAsync(new ScriptCall("unload"), limit.Token).ConfigureAwait(false);
            }
        }
        catch (Exception e) when (e is NbdException or OperationCanceledException)
        {
            // As nbdkit: nobody is left to be told.
        }
        finally
        {
            Host.Dispose();
            GC.SuppressFinalize(this);
        }
    }

    /// <summary>Loads the scripts.</summary>
    /// <returns>The parameters that they are to get.</returns>
    private protected abstract ValueTask<IEnumerable<KeyValuePair<string, string>>> LoadAsync(CancellationToken cancellationToken);

    /// <summary>The command that a method is to be added to; null if there is no such method, and no need to run anything to know it.</summary>
    private protected abstract string[]? Find(string method);
}
