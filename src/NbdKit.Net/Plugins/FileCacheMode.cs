namespace NbdKit.Plugins;

/// <summary>What happens to the page cache of a served file (nbdkit-file-plugin(1), <c>cache</c>).</summary>
public enum FileCacheMode
{
    /// <summary>The operating system decides what to keep.</summary>
    Default,

    /// <summary>
    /// What was read is dropped from the page cache at once, and what was written soon after it has reached the disk: for
    /// copying large images without pushing everything else out of memory. Only Linux does this.
    /// </summary>
    None,
}
