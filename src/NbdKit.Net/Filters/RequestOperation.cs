namespace NbdKit.Filters;

/// <summary>The kinds of requests that <see cref="PolicyFilter"/> judges and <see cref="StatsFilter"/> counts.</summary>
public enum RequestOperation
{
    /// <summary>Data is read (NBD_CMD_READ).</summary>
    Read,

    /// <summary>Data is written (NBD_CMD_WRITE).</summary>
    Write,

    /// <summary>A range is given up (NBD_CMD_TRIM).</summary>
    Trim,

    /// <summary>A range is made to read as zeroes (NBD_CMD_WRITE_ZEROES).</summary>
    Zero,

    /// <summary>It is asked what a range is made of (NBD_CMD_BLOCK_STATUS).</summary>
    Extents,

    /// <summary>A range will be read soon (NBD_CMD_CACHE).</summary>
    Cache,

    /// <summary>Changes are brought to stable storage (NBD_CMD_FLUSH).</summary>
    Flush,
}
