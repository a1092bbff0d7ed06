using System.Text;

namespace NbdKit.Protocol;

/// <summary>Strings of the protocol: UTF-8, at most 4,096 bytes, no NUL, no terminator ("Conventions").</summary>
internal static class WireString
{
    public const int MaximumBytes = 4096;

    // Strict: invalid bytes must not become U+FFFD, or two different names would become equal.
    private static readonly UTF8Encoding Strict = new(encoderShouldEmitUTF8Identifier: false, throwOnInvalidBytes: true);

    /// <summary>Refuses a string of ours that must not travel.</summary>
    public static void Check(string value, string what)
    {
        ArgumentNullException.ThrowIfNull(value, what);
        int bytes;
        try
        {
            bytes = Strict.GetByteCount(value);
        }
        catch (EncoderFallbackException e)
        {
            throw new ArgumentException($"The {what} is not valid Unicode.", what, e);
        }
        if (bytes > MaximumBytes)
        {
            throw new ArgumentException($"The {what} has {bytes} bytes; the protocol allows {MaximumBytes}.", what);
        }
        if (value.Contains('\0', StringComparison.Ordinal))
        {
            throw new ArgumentException($"The {what} contains a NUL character.", what);
        }
    }

    /// <summary>Reads a string of the peer's; false if it breaks the rules.</summary>
    public static bool TryDecode(ReadOnlySpan<byte> bytes, out string value)
    {
        value = "";
        if (bytes.Length > MaximumBytes || bytes.Contains((byte)0))
        {
            return false;
        }
        try
        {
            value = Strict.GetString(bytes);
            return true;
        }
        catch (DecoderFallbackException)
        {
            return false;
        }
    }

    /// <summary>Encodes a display string of ours, cleaned and cut at a character so that it obeys the rules.</summary>
    public static byte[] EncodeMessage(string value, int maximumBytes)
    {
        var builder = new StringBuilder();
        int bytes = 0;
        foreach (Rune rune in value.EnumerateRunes())
        {
            Rune clean = rune.Value == 0 ? Rune.ReplacementChar : rune;
            bytes += clean.Utf8SequenceLength;
            if (bytes > maximumBytes)
            {
                break;
            }
            builder.Append(clean.ToString());
        }
        return Strict.GetBytes(builder.ToString());
    }

    /// <summary>Encodes a string that was checked before.</summary>
    public static byte[] Encode(string value) => Strict.GetBytes(value);
}
