namespace NbdKit.Copy;

/// <summary>What the pieces of a copy go to. Every worker has a lane of its own; calls of different lanes run in parallel.</summary>
internal abstract class CopyTarget
{
    /// <summary>Whether the pieces have to come in order, one at a time.</summary>
    public virtual bool IsOrdered => false;

    /// <summary>Whether zeroes in data are better passed on as zeroes.</summary>
    public abstract bool WantsZeroes { get; }

    /// <summary>The longest piece of zeroes to pass on at a time.</summary>
    public virtual long ZeroPiece => long.MaxValue;

    public abstract ValueTask WriteAsync(
        int lane, ReadOnlyMemory<byte> data, long offset, CancellationToken cancellationToken);

    /// <summary>Makes a range zero that the source does not even hold as data.</summary>
    public abstract ValueTask ZeroAsync(int lane, long offset, long length, CancellationToken cancellationToken);

    /// <summary>Makes a range zero whose zeroes are at hand, so that writing them is the other way to do it.</summary>
    public abstract ValueTask ZeroAsync(
        int lane, ReadOnlyMemory<byte> zeroes, long offset, CancellationToken cancellationToken);

    /// <summary>Brings all that was written to stable storage.</summary>
    public virtual ValueTask FlushAsync(CancellationToken cancellationToken) => default;

    /// <summary>Called when all pieces were written.</summary>
    public virtual ValueTask EndAsync(CancellationToken cancellationToken) => default;
}
