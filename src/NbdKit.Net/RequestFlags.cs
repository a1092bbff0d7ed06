namespace NbdKit;

/// <summary>What else a request asks for, besides its range.</summary>
[Flags]
public enum RequestFlags
{
    /// <summary>Nothing else.</summary>
    None = 0,

    /// <summary>
    /// Force unit access: complete only when the data of this request is on stable storage (NBD_CMD_FLAG_FUA).
    /// For writes, trims and zeroes.
    /// </summary>
    Fua = 1,

    /// <summary>
    /// A zero may give up the space behind the range (the absence of NBD_CMD_FLAG_NO_HOLE). A layer may drop this flag,
    /// never add it.
    /// </summary>
    MayTrim = 2,

    /// <summary>
    /// A zero must fail at once with <see cref="NbdError.NotSupported"/> unless it is faster than writing zeroes
    /// (NBD_CMD_FLAG_FAST_ZERO).
    /// </summary>
    FastZero = 4,

    /// <summary>Only the first extent is wanted (NBD_CMD_FLAG_REQ_ONE).</summary>
    RequestOne = 8,
}
