using System.Runtime.ExceptionServices;

namespace NbdKit.Layers;

/// <summary>A chain that a plugin holds, opened by it. The chain does not end before this is closed.</summary>
internal sealed class InnerContext
{
    private readonly NbdBackend _chain;
    private CancellationToken _quick;

    private InnerContext(NbdBackend chain, NextContext next)
    {
        _chain = chain;
        Next = next;
        // A chain that takes one connection at a time would let the second one wait in its open for ever.
        Info = chain.ThreadModel > ThreadModel.SerializeConnections ? next.Info : next.Info with { CanMultiConn = false };
    }

    /// <summary>The prepared context of the outermost layer of the chain.</summary>
    public NextContext Next { get; }

    /// <summary>What the chain can do for the client of the plugin.</summary>
    public NbdExportInfo Info { get; }

    /// <summary>Opens and prepares a chain, and starts it if nobody has.</summary>
    /// <param name="chain">The chain.</param>
    /// <param name="holder">The layer of the plugin that holds it.</param>
    /// <param name="readOnly">Whether to open it read-only.</param>
    /// <param name="exportName">Its export; "" for its default export.</param>
    /// <param name="connection">The client, which the layers of the chain see as theirs, or null.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public static async ValueTask<InnerContext> OpenAsync(
        NbdBackend chain,
        NbdBackend holder,
        bool readOnly,
        string exportName,
        NbdConnection? connection,
        CancellationToken cancellationToken)
    {
        if (chain.ThreadModel == ThreadModel.SerializeRetirement && holder.ThreadModel > ThreadModel.SerializeRetirement)
        {
            throw new InvalidOperationException(
                $"The chain of {chain.Name} answers requests in their order, which {holder.Name} was not composed for.");
        }
        await chain.AcquireAsync(holder.LoggerFactory, host: false, cancellationToken).ConfigureAwait(false);
        NextContext? next = null;
        try
        {
            await PreconnectAsync(chain, connection, readOnly, cancellationToken).ConfigureAwait(false);
            next = await chain.OpenEntryAsync(readOnly, exportName, connection, cancellationToken).ConfigureAwait(false);
            await next.PrepareAsync(cancellationToken).ConfigureAwait(false);
            return new InnerContext(chain, next);
        }
        catch
        {
            try
            {
                await (next?.CloseAsync() ?? default).ConfigureAwait(false);
            }
            finally
            {
                await chain.ReleaseAsync(host: false, cancellationToken).ConfigureAwait(false);
            }
            throw;
        }
    }

    /// <summary>Asks a chain, once for each client, whether the client may connect.</summary>
    public static async ValueTask PreconnectAsync(
        NbdBackend chain, NbdConnection? connection, bool readOnly, CancellationToken cancellationToken)
    {
        if (connection is null)
        {
            return;
        }
        lock (connection.Preconnected)
        {
            if (connection.Preconnected.Contains(chain))
            {
                return;
            }
        }
        await chain.PreconnectAsync(connection, readOnly, cancellationToken).ConfigureAwait(false);
        lock (connection.Preconnected)
        {
            connection.Preconnected.Add(chain);
        }
    }

    /// <summary>Lets the chain do its last work for this context.</summary>
    public ValueTask FinalizeAsync(CancellationToken quick)
    {
        _quick = quick;
        return Next.FinalizeAsync(quick);
    }

    /// <summary>Finalizes the context if that was not done, and closes it. Ends the chain if nobody else uses it.</summary>
    public async ValueTask CloseAsync()
    {
        try
        {
            await Next.CloseAsync().ConfigureAwait(false);
        }
        finally
        {
            await _chain.ReleaseAsync(host: false, _quick).ConfigureAwait(false);
        }
    }

    /// <summary>Closes several, whatever happens to each; throws what the first that failed has thrown.</summary>
    public static async ValueTask CloseAllAsync(IEnumerable<InnerContext> contexts)
    {
        ExceptionDispatchInfo? failure = null;
        foreach (InnerContext context in contexts)
        {
            try
            {
                await context.CloseAsync().ConfigureAwait(false);
            }
            catch (Exception e)
            {
                failure ??= ExceptionDispatchInfo.Capture(e);
            }
        }
        failure?.Throw();
    }
}
