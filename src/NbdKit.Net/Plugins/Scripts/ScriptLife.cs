namespace NbdKit.Plugins.Scripts;

/// <summary>The methods of scripts that do not belong to an open export: those of <see cref="INbdPlugin"/>.</summary>
internal static class ScriptLife
{
    private const int ExportsLimit = 64 << 20;

    /// <summary>Configures a script, in nbdkit's order: each parameter, then the end of them, the thread model, ready.</summary>
    public static async ValueTask ReadyAsync(
        this ScriptHost host,
        IEnumerable<KeyValuePair<string, string>> parameters,
        CancellationToken cancellationToken)
    {
        await host.ConfigureAsync(parameters, cancellationToken).ConfigureAwait(false);
        await host.CallAsync(new ScriptCall("config_complete"), cancellationToken).ConfigureAwait(false);
        await host.AskModelAsync(cancellationToken).ConfigureAwait(false);
        await host.CallAsync(new ScriptCall("get_ready"), cancellationToken).ConfigureAwait(false);
    }

    /// <summary>Asks a script about itself, in nbdkit's order: it is told its parameters, but not that there are no more.</summary>
    public static async ValueTask<string> DumpAsync(
        this ScriptHost host,
        IEnumerable<KeyValuePair<string, string>> parameters,
        CancellationToken cancellationToken)
    {
        await host.ConfigureAsync(parameters, cancellationToken).ConfigureAwait(false);
        await host.AskModelAsync(cancellationToken).ConfigureAwait(false);
        string? text = await host.TextAsync(new ScriptCall("dump_plugin"), cancellationToken).ConfigureAwait(false);
        return string.IsNullOrEmpty(text) || text.EndsWith('\n') ? text ?? "" : text + "\n";
    }

    private static async ValueTask ConfigureAsync(
        this ScriptHost host,
        IEnumerable<KeyValuePair<string, string>> parameters,
        CancellationToken cancellationToken)
    {
        foreach ((string name, string value) in parameters)
        {
            if (!await host.CallAsync(new ScriptCall("config", name, value), cancellationToken).ConfigureAwait(false))
            {
                throw host.Failed("config", NbdError.InvalidArgument, $"the script takes no parameters, and {name}= was given");
            }
        }
    }

    private static async ValueTask AskModelAsync(this ScriptHost host, CancellationToken cancellationToken)
    {
        string? model = await host.TextAsync(new ScriptCall("thread_model"), cancellationToken).ConfigureAwait(false);
        host.Model = ScriptText.Model(model ?? "");
    }

    public static async ValueTask StartAsync(this ScriptHost host, CancellationToken cancellationToken)
        => await host.CallAsync(new ScriptCall("after_fork"), cancellationToken).ConfigureAwait(false);

    public static async ValueTask PreconnectAsync(
        this ScriptHost host, NbdConnection connection, bool readOnly, CancellationToken cancellationToken)
        => await host.CallGatedAsync(
            new ScriptCall("preconnect", ScriptText.Boolean(readOnly)) { Connection = connection }, cancellationToken)
            .ConfigureAwait(false);

    public static async ValueTask ListExportsAsync(
        this ScriptHost host, ExportList exports, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        string? text = await host.CallGatedAsync(ForClient("list_exports", readOnly, connection), cancellationToken, ExportsLimit)
            .ConfigureAwait(false);
        if (text is null)
        {
            exports.AddDefault();
            return;
        }
        foreach ((string name, string? description) in ScriptText.Exports(text))
        {
            try
            {
                exports.Add(name, description);
            }
            catch (Exception e) when (e is ArgumentException or InvalidOperationException)
            {
                throw host.Failed("list_exports", NbdError.InvalidArgument, e.Message);
            }
        }
    }

    public static async ValueTask<string?> DefaultExportAsync(
        this ScriptHost host, bool readOnly, NbdConnection? connection, CancellationToken cancellationToken)
    {
        string? text = await host.CallGatedAsync(ForClient("default_export", readOnly, connection), cancellationToken)
            .ConfigureAwait(false);
        return text is null ? "" : ScriptText.Exports(text).Select(export => export.Name).FirstOrDefault("");
    }

    /// <summary>Opens an export: what the script prints is the handle that its other methods get.</summary>
    public static async ValueTask<INbdPluginHandle> OpenAsync(
        this ScriptHost host, NbdOpenContext context, CancellationToken cancellationToken)
    {
        bool only = host.Model == ThreadModel.SerializeConnections;
        if (only)
        {
            await host.OnlyConnection.WaitAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            var call = new ScriptCall(
                "open", ScriptText.Boolean(context.ReadOnly), context.ExportName, ScriptText.Boolean(context.IsTls))
            {
                Connection = context.Connection,
            };
            string? handle = await host.CallGatedAsync(call, cancellationToken).ConfigureAwait(false);
            return new ScriptHandle(host, ScriptText.Chomp(handle ?? ""), context);
        }
        catch when (only)
        {
            host.OnlyConnection.Release();
            throw;
        }
    }

    private static ScriptCall ForClient(string method, bool readOnly, NbdConnection? connection)
        => new(method, ScriptText.Boolean(readOnly), ScriptText.Boolean(connection is { IsTls: true })) { Connection = connection };

    private static async ValueTask<string?> CallGatedAsync(
        this ScriptHost host, ScriptCall call, CancellationToken cancellationToken, int limit = 1 << 20)
    {
        bool gated = host.Model <= ThreadModel.SerializeAllRequests;
        if (gated)
        {
            await host.Gate.EnterAsync(cancellationToken).ConfigureAwait(false);
        }
        try
        {
            return await host.TextAsync(call, cancellationToken, limit).ConfigureAwait(false);
        }
        finally
        {
            if (gated)
            {
                host.Gate.Exit();
            }
        }
    }
}
