namespace NbdKit.Copy;

/// <summary>Cuts the source into pieces and hands them out in order, to as many workers as ask.</summary>
internal abstract class CopyPlan
{
    /// <summary>Size of the source in bytes, or null for a stream of unknown length.</summary>
    public abstract long? Size { get; }

    /// <summary>The next piece; of kind <see cref="PieceKind.End"/> when there are no more.</summary>
    /// <param name="buffer">Receives the bytes if they can only be had in order.</param>
    /// <param name="cancellationToken">Gives up.</param>
    public abstract ValueTask<CopyPiece> TakeAsync(CopyBuffer buffer, CancellationToken cancellationToken);

    /// <summary>Waits for what the plan may still be asking the source for. Never fails.</summary>
    public virtual ValueTask SettleAsync() => default;
}
