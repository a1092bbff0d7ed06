namespace NbdKit.Filters;

/// <summary>What <see cref="BlockSizePolicyFilter"/> does with requests that break the block sizes it advertises.</summary>
public enum BlockSizeErrorPolicy
{
    /// <summary>Passes them on, unless they break the block sizes of the layer below.</summary>
    Allow,

    /// <summary>Refuses them with EINVAL, but for a short block at the end of the export.</summary>
    Error,

    /// <summary>Refuses them with EINVAL, a short block at the end too.</summary>
    StrictError,
}
