namespace NbdKit.Copy;

/// <summary>The contexts of one side of a copy.</summary>
internal static class ContextSet
{
    /// <summary>Checks that they are one disk, opened as often as there are contexts.</summary>
    /// <exception cref="ArgumentException">They are not, or must not be used together.</exception>
    public static IReadOnlyList<NextContext> Check(IReadOnlyList<NextContext> contexts)
    {
        ArgumentNullException.ThrowIfNull(contexts);
        if (contexts.Count == 0)
        {
            throw new ArgumentException("A side of a copy needs at least one opened context.", nameof(contexts));
        }
        foreach (NextContext context in contexts)
        {
            ArgumentNullException.ThrowIfNull(context, nameof(contexts));
            if (context.Info.Size != contexts[0].Info.Size)
            {
                throw new ArgumentException(
                    $"The contexts of one side are of different size: {contexts[0].Info.Size} and {context.Info.Size} bytes.",
                    nameof(contexts));
            }
            if (contexts.Count > 1 && !context.Info.CanMultiConn)
            {
                throw new ArgumentException(
                    $"{context.Backend.Name} does not say that several connections may be used as one; give one context.",
                    nameof(contexts));
            }
        }
        return [.. contexts];
    }
}
