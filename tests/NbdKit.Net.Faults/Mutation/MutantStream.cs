namespace NbdKit.Faults.Mutation;

/// <summary>What is sent: the pieces in which it arrives, and which variant of the target it is for.</summary>
internal sealed record MutantStream(byte Variant, byte[][] Chunks)
{
    public long Length => Chunks.Sum(chunk => (long)chunk.Length);

    /// <summary>All pieces as one.</summary>
    public byte[] Joined() => [.. Chunks.SelectMany(chunk => chunk)];

    /// <summary>The variant in the first line, then each piece in hexadecimal.</summary>
    public override string ToString()
        => string.Join('\n', [Variant.ToString("x2", null), .. Chunks.Select(Convert.ToHexStringLower)]) + "\n";

    /// <summary>Reads what <see cref="ToString"/> wrote, in which lines that begin with # are comments.</summary>
    public static MutantStream Parse(string text)
    {
        string[] lines = [.. text.ReplaceLineEndings("\n").TrimEnd('\n').Split('\n').Where(line => !line.StartsWith('#'))];
        return new MutantStream(Convert.FromHexString(lines[0])[0], [.. lines[1..].Select(Convert.FromHexString)]);
    }
}
