using NbdKit.Buffers;
using NbdKit.Layers;

namespace NbdKit.Filters.Clients;

/// <summary>A context that passes everything on, and lets go of its client when it is closed.</summary>
internal sealed class ClientHandle : INbdFilterHandle, ILendingFilter, ITransparentFilter
{
    private readonly ClientRoll _roll;
    private readonly NbdConnection _client;

    private ClientHandle(ClientRoll roll, NbdConnection client)
    {
        _roll = roll;
        _client = client;
    }

    bool INbdFilterHandle.KeepsNext => true;

    /// <summary>Opens the layer below for a client, who is on the roll until the context is closed.</summary>
    /// <exception cref="NbdException">The roll is full, or the layer below refused.</exception>
    public static async ValueTask<INbdFilterHandle> OpenAsync(
        ClientRoll roll, NbdConnection client, int limit, NbdContext context, CancellationToken cancellationToken)
    {
        if (!roll.TryHold(client, limit))
        {
            throw new NbdException(NbdError.PermissionDenied, $"only {limit} clients are served at a time");
        }
        try
        {
            await context.OpenNextAsync(cancellationToken).ConfigureAwait(false);
        }
        catch
        {
            roll.Release(client);
            throw;
        }
        return new ClientHandle(roll, client);
    }

    /// <summary>Puts a client on the roll until the context is closed, whose layer below is open.</summary>
    public static ClientHandle Hold(ClientRoll roll, NbdConnection client)
    {
        roll.TryHold(client);
        return new ClientHandle(roll, client);
    }

    bool ITransparentFilter.LeavesAlone(LayerOperation operation) => true;

    bool ILendingFilter.TryLend(NextContext next, long offset, int length, Loan loan, bool forWrite)
        => next.TryLend(offset, length, loan, forWrite);

    void ILendingFilter.Prefetch(NextContext next, long offset) => next.Prefetch(offset);

    public ValueTask CloseAsync()
    {
        _roll.Release(_client);
        return default;
    }
}
