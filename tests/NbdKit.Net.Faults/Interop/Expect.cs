namespace NbdKit.Faults.Interop;

/// <summary>What must hold in a session.</summary>
internal static class Expect
{
    /// <summary>Fails unless it holds.</summary>
    public static void That(bool holds, string what)
    {
        if (!holds)
        {
            throw new InvalidOperationException($"Not as expected: {what}");
        }
    }

    /// <summary>Fails unless two stretches of bytes are the same.</summary>
    public static void Same(ReadOnlySpan<byte> found, ReadOnlySpan<byte> expected, string what)
        => That(found.SequenceEqual(expected), what);

    /// <summary>Fails unless what a program printed contains a text.</summary>
    public static void Contains(string printed, string text) => That(printed.Contains(text, StringComparison.Ordinal), $"no \"{text}\" in: {printed}");
}
