namespace NbdKit.Tests.Testing;

/// <summary>What <see cref="FaultyPlugin"/> does with requests that begin in each MiB of its default export.</summary>
public enum FaultyRegion
{
    /// <summary>Works.</summary>
    Good,

    /// <summary>Fails with ENOSPC.</summary>
    NoSpace,

    /// <summary>Throws what no plugin should, at once.</summary>
    ThrowsAtOnce,

    /// <summary>Throws what no plugin should, later.</summary>
    ThrowsLater,

    /// <summary>Says that it was cancelled though nobody cancelled it.</summary>
    CancelsItself,

    /// <summary>Runs out of memory.</summary>
    NoMemory,

    /// <summary>Fails with a number that is none.</summary>
    UnknownError,

    /// <summary>Fails with ENOTSUP.</summary>
    NotSupported,

    /// <summary>Stops for a time as short as can be, then works.</summary>
    Late,

    /// <summary>Does not answer before <see cref="FaultyPlugin.Release"/>, or until the connection has ended.</summary>
    Hangs,

    /// <summary>Does not answer before <see cref="FaultyPlugin.Release"/>, whatever happens.</summary>
    HangsForGood,

    /// <summary>Lets all that hangs go, and works.</summary>
    Releases,

    /// <summary>Is not there, although the size says so.</summary>
    Missing,
}
