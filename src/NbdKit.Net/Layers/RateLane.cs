namespace NbdKit.Layers;

/// <summary>The way of one connection's reads, or writes, through its own bucket and the one that it shares with others.</summary>
internal sealed class RateLane(RateBucket shared, RateBucket own)
{
    private readonly RateBucket.Flow _sharedFlow = new();
    private readonly RateBucket.Flow _ownFlow = new();

    /// <summary>Its own bucket, or that of its client.</summary>
    public RateBucket Own { get; } = own;

    /// <summary>Lets bytes pass at once, or takes nothing.</summary>
    public bool TryTake(int bytes)
    {
        long bits = bytes * 8L;
        if (!Own.TryTake(_ownFlow, bits))
        {
            return false;
        }
        if (shared.TryTake(_sharedFlow, bits))
        {
            return true;
        }
        Own.Return(bits);
        return false;
    }

    /// <summary>Lets bytes pass when it is their turn.</summary>
    public async ValueTask TakeAsync(int bytes, CancellationToken cancellationToken)
    {
        await Own.TakeAsync(_ownFlow, bytes * 8L, cancellationToken).ConfigureAwait(false);
        await shared.TakeAsync(_sharedFlow, bytes * 8L, cancellationToken).ConfigureAwait(false);
    }
}
