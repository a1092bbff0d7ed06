namespace NbdKit.Filters;

/// <summary>A request that <see cref="ErrorFilter.Decide"/> lets pass or makes fail.</summary>
/// <param name="Operation">What is asked for.</param>
/// <param name="Offset">First byte of its range.</param>
/// <param name="Length">Number of bytes of its range, more than 0.</param>
/// <param name="Flags">What else is asked for.</param>
public readonly record struct ErrorRequest(ErrorOperation Operation, long Offset, long Length, RequestFlags Flags);
