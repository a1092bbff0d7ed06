namespace NbdKit.Filters;

/// <summary>Where <see cref="CowFilter"/> keeps what is written.</summary>
public enum CowStore
{
    /// <summary>
    /// In a sparse temporary file that nobody else can open and that is gone with the process, however it ends.
    /// </summary>
    File,

    /// <summary>In memory: faster, and bounded by the memory there is.</summary>
    Memory,
}
