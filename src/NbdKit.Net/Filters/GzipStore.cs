namespace NbdKit.Filters;

/// <summary>Where <see cref="GzipFilter"/> keeps what it has decompressed.</summary>
public enum GzipStore
{
    /// <summary>In a temporary file that nobody else can open and that is gone with the process (<c>file</c>).</summary>
    File,

    /// <summary>In memory (<c>memory</c>).</summary>
    Memory,
}
