namespace NbdKit.Filters;

/// <summary>The operations that <see cref="ErrorFilter"/> can make fail.</summary>
public enum ErrorOperation
{
    /// <summary>A read (nbdkit's <c>pread</c>).</summary>
    Read,

    /// <summary>A write (nbdkit's <c>pwrite</c>).</summary>
    Write,

    /// <summary>A trim.</summary>
    Trim,

    /// <summary>A zero.</summary>
    Zero,

    /// <summary>A question about extents.</summary>
    Extents,

    /// <summary>A prefetch.</summary>
    Cache,
}
