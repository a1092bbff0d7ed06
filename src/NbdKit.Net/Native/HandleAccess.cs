namespace NbdKit.Native;

/// <summary>What an open descriptor may be used for.</summary>
internal enum HandleAccess
{
    /// <summary>Not for reading.</summary>
    None,

    /// <summary>Only for reading.</summary>
    Read,

    /// <summary>For reading, and for writing anywhere.</summary>
    ReadWrite,

    /// <summary>For reading, and for writing at the end.</summary>
    Append,
}
