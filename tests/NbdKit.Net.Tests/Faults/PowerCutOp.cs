namespace NbdKit.Tests.Faults;

/// <summary>What a <see cref="PowerCutStep"/> does.</summary>
internal enum PowerCutOp
{
    Write,
    Zero,
    Trim,
    Flush,
    Read,
    Prefetch,

    /// <summary>The context ends, and another takes its place.</summary>
    Reopen,
}
