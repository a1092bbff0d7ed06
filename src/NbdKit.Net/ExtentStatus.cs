namespace NbdKit;

/// <summary>
/// What an extent is, in the bits of the <c>base:allocation</c> meta context. For any other context the number is whatever
/// that context defines, cast to this type.
/// </summary>
[Flags]
public enum ExtentStatus : ulong
{
    /// <summary>Allocated, with any content (0). Always a safe answer.</summary>
    Data = 0,

    /// <summary>Not allocated: writing here may fail for lack of space (NBD_STATE_HOLE).</summary>
    Hole = 1,

    /// <summary>Reads as zeroes (NBD_STATE_ZERO).</summary>
    Zero = 2,
}
