namespace NbdKit.Client.Pool;

/// <summary>One place of a pool: a connection, or the attempt to have one again.</summary>
internal sealed class PoolMember(
    NbdClient client,
    Func<CancellationToken, Task<NbdClient>>? connect,
    NbdReconnectPolicy? policy,
    TimeProvider timeProvider,
    Action lost)
{
    private readonly Lock _lock = new();
    private readonly CancellationTokenSource _closed = new();
    private NbdClient _client = client;
    private Task? _reviving;
    private NbdClientException? _end;

    /// <summary>The connection; it may have ended.</summary>
    public NbdClient Client
    {
        get
        {
            lock (_lock)
            {
                return _client;
            }
        }
    }

    /// <summary>Whether it was given up for good.</summary>
    public bool IsGivenUp
    {
        get
        {
            lock (_lock)
            {
                return _end is not null;
            }
        }
    }

    /// <summary>Replaces a connection that has ended, if nobody has done so yet; many may ask at the same time.</summary>
    /// <exception cref="NbdClientException">It was given up.</exception>
    public async Task ReviveAsync(NbdClient ended, CancellationToken cancellationToken)
    {
        Task reviving;
        lock (_lock)
        {
            if (_end is not null)
            {
                throw new NbdClientException(_end.Error, _end.Message, _end);
            }
            if (_client != ended)
            {
                return;
            }
            reviving = _reviving ??= ConnectAgainAsync(ended);
        }
        await reviving.WaitAsync(cancellationToken).ConfigureAwait(false);
    }

    public async Task CloseAsync()
    {
        NbdClient client;
        Task? reviving;
        lock (_lock)
        {
            _end ??= new NbdClientException(NbdClientError.ConnectionLost, "The client has disconnected.");
            client = _client;
            reviving = _reviving;
        }
        await _closed.CancelAsync().ConfigureAwait(false);
        if (reviving is not null)
        {
            await reviving.ConfigureAwait(ConfigureAwaitOptions.SuppressThrowing);
        }
        await client.DisposeAsync().ConfigureAwait(false);
        await Client.DisposeAsync().ConfigureAwait(false);
    }

    private async Task ConnectAgainAsync(NbdClient ended)
    {
        lost();
        await ended.DisposeAsync().ConfigureAwait(false);
        NbdClientException? failure = null;
        for (int attempt = 0; attempt < policy!.Attempts; attempt++)
        {
            try
            {
                await Task.Delay(policy.Delay, timeProvider, _closed.Token).ConfigureAwait(false);
                NbdClient next = await connect!(_closed.Token).ConfigureAwait(false);
                if (IsTheSame(next.Info, ended.Info))
                {
                    lock (_lock)
                    {
                        _client = next;
                        _reviving = null;
                    }
                    return;
                }
                await next.DisposeAsync().ConfigureAwait(false);
                failure = new NbdClientException(
                    NbdClientError.ExportUnknown, "After the connection was lost the server has another export under the same name.");
                break;
            }
            catch (NbdClientException e)
            {
                failure = e;
            }
            catch (OperationCanceledException)
            {
                break;
            }
        }
        lock (_lock)
        {
            failure = _end ??= failure!;
        }
        throw failure;
    }

    // What requests were checked against must still hold.
    private static bool IsTheSame(NbdExportInfo next, NbdExportInfo ended)
        => next with { MetaContexts = ended.MetaContexts, Description = ended.Description, CanonicalName = ended.CanonicalName } == ended
            && ended.MetaContexts.All(next.MetaContexts.Contains);
}
